"""The closed loop: it reads its own forecasts, and holds autoregressions."""

import torch

from tsar.core.closed_loop import ClosedLoop

COEFFICIENTS = torch.tensor([0.5, -0.3, 0.2, 0.1], dtype=torch.float64)


def _roll(start, length):
    """Go on from the first steps (B, p) by the autoregression."""
    steps = list(start.unbind(1))
    while len(steps) < length:
        steps.append(sum(c * steps[-1 - lag] for lag, c in enumerate(COEFFICIENTS)))
    return torch.stack(steps, dim=1)


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def test_without_inputs_it_reads_what_it_expects():
    for normalise in (True, False):
        torch.manual_seed(0)
        loop = ClosedLoop(3, d_state=5, normalise=normalise).double()
        with torch.no_grad():
            for weights in loop.parameters():
                weights.mul_(0.4)
        x = _random(2, 17, 3)
        ahead, _ = loop(x, 9)
        for step in range(9):
            _, expected = loop(x, 1, each_step=True)
            torch.testing.assert_close(ahead[:, step], expected.outputs[:, -1])
            x = torch.cat([x, expected.inputs[:, -1:]], dim=1)


def test_what_is_expected_after_a_token_is_the_first_step_after_it():
    torch.manual_seed(0)
    loop = ClosedLoop(3, d_state=5).double()
    x = _random(2, 17, 3)
    _, expected = loop(x, 1, each_step=True)
    for length in (1, 6, 17):
        ahead, nothing = loop(x[:, :length], 1)
        assert nothing is None
        torch.testing.assert_close(ahead[:, 0], expected.outputs[:, length - 1])


def test_it_is_any_autoregression():
    loop = ClosedLoop(1, d_state=4, normalise=False).double()
    with torch.no_grad():
        loop.last.zero_()
        loop.enter.copy_(torch.eye(4)[0])
        loop.leave.copy_(COEFFICIENTS)
        loop.again.copy_(COEFFICIENTS)
    x = _random(3, 11)
    ahead, _ = loop(x[..., None], 200)
    torch.testing.assert_close(ahead[..., 0], _roll(x, 211)[:, 11:], rtol=1e-9, atol=1e-12)


def test_an_autoregression_is_learned_and_continued():
    x = _roll(_random(64, 4), 24)[..., None]
    torch.manual_seed(2)
    loop = ClosedLoop(1, d_state=4, normalise=False).double()
    with torch.no_grad():
        for weights in loop.parameters():
            weights.mul_(0.3)
    optimizer = torch.optim.LBFGS(
        loop.parameters(), max_iter=300, line_search_fn="strong_wolfe", tolerance_change=1e-14
    )

    def closure():
        optimizer.zero_grad()
        _, expected = loop(x[:, :-1], 1, each_step=True)
        error = sum((part[:, 3:] - x[:, 4:]).square().mean() for part in expected)
        error.backward()
        return error

    optimizer.step(closure)
    pulse = torch.zeros(1, 20, 1, dtype=torch.float64)
    pulse[:, 0] = 1.0
    with torch.no_grad():
        response = loop(pulse, 1, each_step=True)[1].outputs[0, :, 0]
        ahead, _ = loop(x[:, :12], 200)
    torch.testing.assert_close(response[:4], COEFFICIENTS, rtol=0, atol=1e-3)
    assert response[4:].abs().max() < 1e-3
    torch.testing.assert_close(ahead[..., 0], _roll(x[:, :12, 0], 212)[:, 12:], rtol=0, atol=1e-3)
