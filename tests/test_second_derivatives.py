"""Second derivatives of the Muscle loss, by autograd and by transforms: those of its literal twin, or refused."""

import pytest
import torch
from literal import muscle_tuples, unit
from torch.autograd.functional import hessian

from fedmuscle_core import gramian_loss, info_nce, muscle_loss, nt_xent
from fedmuscle_core.losses import cka_loss


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


@pytest.mark.parametrize("num_peers", [1, 2, 3])
def test_the_hessian_is_that_of_the_tuples_written_out(num_peers):
    anchor, peers = rows(4, 3), unit(rows(num_peers, 4, 3))
    ours = hessian(lambda anchor: muscle_loss(anchor, peers), anchor)
    literal = hessian(lambda anchor: muscle_tuples(unit(anchor), peers, 0.2, 0.15, True).mean(), anchor)
    assert torch.allclose(ours, literal, rtol=1e-10, atol=1e-12) and literal.abs().max() > 1


def test_a_gradient_penalty_is_that_of_the_tuples_written_out():
    peers, found = unit(rows(2, 4, 3)), []
    for loss in (lambda anchor: muscle_loss(anchor, peers),
                 lambda anchor: muscle_tuples(unit(anchor), peers, 0.2, 0.15, True).mean()):
        anchor = rows(4, 3).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(anchor), anchor, create_graph=True)
        gradient.square().sum().backward()
        found.append(anchor.grad)
    assert torch.allclose(*found, rtol=1e-10) and found[1].abs().max() > 0.1


def test_the_gradient_is_the_same_with_and_without_a_graph_of_its_own():
    anchor, peers = rows(5, 3).requires_grad_(), unit(rows(3, 5, 3))
    plain, with_graph = (torch.autograd.grad(muscle_loss(anchor, peers), anchor, create_graph=graph)[0]
                         for graph in (False, True))
    assert torch.allclose(plain, with_graph, rtol=1e-12) and with_graph.requires_grad and not plain.requires_grad


def test_those_of_the_sampled_loss_and_transforms_are_refused():
    anchor, peers = rows(4, 3).requires_grad_(), rows(2, 4, 3)
    loss = muscle_loss(anchor, peers, estimator="sampled", generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad(loss, anchor, create_graph=True)
    with pytest.raises(NotImplementedError, match="estimator: got 'sampled', expected 'exact' for second derivatives"):
        gradient.square().sum().backward()
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.func.vmap(lambda anchor: muscle_loss(anchor, peers))(rows(2, 4, 3))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")       # torch's own, of forward mode
@pytest.mark.parametrize("num_peers", [1, 2, 3])
def test_transforms_of_the_exact_loss_are_those_of_autograd(num_peers):
    anchor, peers = rows(4, 3), rows(num_peers, 4, 3)

    def loss(anchor):
        return muscle_loss(anchor, peers)

    def literal(anchor):
        return muscle_tuples(unit(anchor), unit(peers), 0.2, 0.15, True).mean()

    tangent = rows(4, 3)
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.hessian,
                      lambda loss: lambda anchor: torch.func.jvp(loss, (anchor,), (tangent,))[1]):
        assert torch.allclose(transform(loss)(anchor), transform(literal)(anchor), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("loss", "shapes"), [(muscle_loss, ((4, 3), (2, 4, 3))), (gramian_loss, ((4, 3), (2, 4, 3))),
                                              (info_nce, ((4, 3), (4, 3))), (nt_xent, ((4, 3), (4, 3))),
                                              (cka_loss, ((4, 3), (4, 4)))])
def test_compiled_losses_are_the_same_and_full_graphs_are_refused(loss, shapes):
    given = [rows(*shape) for shape in shapes]
    assert torch.equal(torch.compile(lambda *given: loss(*given), backend="eager")(*given), loss(*given))
    with pytest.raises(torch._dynamo.exc.Unsupported, match="got fullgraph=True, expected False, as it checks values"):
        torch.compile(lambda *given: loss(*given), fullgraph=True, backend="eager")(*given)
