"""The command `fedmuscle`: reproduce the notebooks of a profile, verify stored runs, get real data, check the installation."""

import argparse
import os
import sys

from ..experiments.processes import stoppable
from . import doctor

KEPT = {"reproduce": "finished runs and notebooks are kept, and the last state of the runs under way: the same command goes on",
        "data": "what was downloaded is kept: the same command goes on"}


def main(argv=None):
    """Entry point; returns the exit status: 0, 1 for failures, 2 for wrong use.  Stopped, it exits, see `stoppable`."""
    parser = argparse.ArgumentParser(prog="fedmuscle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    reproduce = commands.add_parser("reproduce", help="run the notebooks of a profile from their sources")
    reproduce.add_argument("--profile", default="quick",
                           help="scale: quick (minutes, proves that it runs), mini (the committed numbers), paper")
    reproduce.add_argument("--only", action="append", metavar="NN", help="only the notebooks that start so, e.g. 02")
    reproduce.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                           help="set a notebook parameter, e.g. -p seeds [0,1]")
    reproduce.add_argument("--workers", type=int, default=1, help="processes that compute runs, one thread each")
    reproduce.add_argument("--force", action="store_true", help="compute again what is already stored")
    reproduce.add_argument("--dry-run", action="store_true",
                           help="only say what would be downloaded, trained and exchanged, and for how long; needs no network")

    verify = commands.add_parser("verify", help="recompute stored runs and compare")
    verify.add_argument("--profile", default="mini", help="whose stored runs (default: %(default)s)")
    verify.add_argument("--sample", type=int, metavar="K",
                        help="only K of them, one of each setup and method in turn (default: all)")

    data = commands.add_parser("data", help="real data sets: list them, fetch one, check one")
    actions = data.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="what there is, its terms, size and whether it is here")
    fetch = actions.add_parser("fetch", help="download one, after showing its size and terms; goes on where it broke off")
    fetch.add_argument("--yes", action="store_true", help="do not ask")
    check = actions.add_parser("check", help="read one and look at every file of it")
    for action in (fetch, check):
        action.add_argument("name", metavar="NAME")

    flower = commands.add_parser("flower", help="federate over several machines with Flower, see its extra [flower]")
    deployments = flower.add_subparsers(dest="action", required=True)
    init = deployments.add_parser("init", help="write keys, certificates, commands, and an app that runs")
    init.add_argument("folder", metavar="FOLDER", help="a new or empty one")
    init.add_argument("--clients", nargs="+", required=True, metavar="NAME", help="a node each")
    init.add_argument("--address", default="127.0.0.1:9100", metavar="HOST:PORT",
                      help="of the server, as the nodes reach it (default: %(default)s, for a first try)")

    commands.add_parser("models", help="pretrained networks: names, makers, licences, and which are here")
    commands.add_parser("doctor", help="check the installed packages")
    for command in [*commands.choices.values(), *actions.choices.values(), init]:
        command.set_defaults(error=command.error)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.error(f"unrecognized arguments: {' '.join(unknown)}")             # with the usage of the subcommand
    try:
        with stoppable(KEPT.get(args.command, "nothing was changed: the same command begins anew")):
            status = _run(args)
            sys.stdout.flush()
            return status
    except ValueError as error:
        print(f"fedmuscle: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:                                                    # e.g. `fedmuscle data list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"fedmuscle: {error}", file=sys.stderr)
        return 1


def _run(args):
    if args.command == "doctor":
        return doctor.main()
    if args.command == "flower":
        from .flower import init
        return init(args.folder, args.clients, args.address)
    if trouble := doctor.problem():
        print(f"fedmuscle: {trouble}", file=sys.stderr)
        return 1
    if args.command == "reproduce":
        given = dict(args.parameter)
        if len(given) < len(args.parameter):
            raise ValueError(f"-p: got {[name for name, _ in args.parameter]}, expected each name once")
        from . import reproduce as notebooks
        if args.dry_run:
            return notebooks.dry_run(args.profile, args.only, given, args.force)
        return notebooks.reproduce(args.profile, args.only, given, args.workers, args.force)
    if args.command == "data":
        from ..world.real.fetch import main as command
        try:
            return command(args.action, getattr(args, "name", None), getattr(args, "yes", False))
        except EOFError as error:
            raise ValueError("data fetch: got no terminal to ask on, expected one, or --yes to download without") from error
    if args.command == "models":
        from .models import main as command
        return command()
    from .verify import verify as command
    return command(args.profile, args.sample)


if __name__ == "__main__":
    sys.exit(main())
