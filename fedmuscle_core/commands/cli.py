"""The command `fedmuscle`: reproduce the notebooks of a profile, verify stored runs, get real data, check the installation."""

import argparse
import sys

from . import doctor


def main(argv=None):
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fedmuscle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    reproduce = commands.add_parser("reproduce", help="run the notebooks of a profile from their sources")
    reproduce.add_argument("--profile", choices=("quick", "mini", "paper"), default="quick",
                           help="scale: quick (minutes, proves that it runs), mini (the committed numbers), paper")
    reproduce.add_argument("--only", action="append", metavar="NN", help="only the notebooks that start so, e.g. 02")
    reproduce.add_argument("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                           help="set a notebook parameter, e.g. -p seeds [0,1]")
    reproduce.add_argument("--workers", type=int, default=1, help="processes that compute runs, one thread each")
    reproduce.add_argument("--force", action="store_true", help="compute again what is already stored")
    reproduce.add_argument("--dry-run", action="store_true",
                           help="only say what would be downloaded, trained and exchanged, and for how long; needs no network")

    verify = commands.add_parser("verify", help="recompute stored runs and compare")
    verify.add_argument("--profile", choices=("quick", "mini"), default="mini")
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

    commands.add_parser("doctor", help="check the installed packages")
    args = parser.parse_args(argv)

    if args.command == "doctor":
        return doctor.main()
    if trouble := doctor.problem():
        print(f"fedmuscle: {trouble}", file=sys.stderr)
        return 1
    try:
        if args.command == "reproduce":
            from . import reproduce as notebooks
            if args.dry_run:
                return notebooks.dry_run(args.profile, args.only, dict(args.parameter))
            return notebooks.reproduce(args.profile, args.only, dict(args.parameter), args.workers, args.force)
        if args.command == "data":
            from ..world.real.fetch import main as command
            return command(args.action, getattr(args, "name", None), getattr(args, "yes", False))
        from .verify import verify as command
        return command(args.profile, args.sample)
    except ValueError as error:
        print(f"fedmuscle: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
