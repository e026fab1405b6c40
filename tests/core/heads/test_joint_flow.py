"""Groups of vectors along a flow: closed forms, who sees whom, and steps against one pass."""

import pytest
import torch

from tsar.core.conditioned import ConditionedDecoder
from tsar.core.heads import JointFlowHead
from tsar.core.heads.denoiser import guided, noise_like
from tsar.core.heads.flow import follow, mixed
from tsar.core.mixers import make_mixer
from tsar.exceptions import ParameterError

LEVELS = torch.tensor([0, 0, 1, 1, 2, 2])


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _head(context, levels=LEVELS, *, rough=True, d_model=8, n_values=3, n_steps=25):
    torch.manual_seed(0)
    decoder = ConditionedDecoder(
        [make_mixer("attention", d_model, n_heads=2, qk_norm=True) for _ in range(2)],
        d_model=d_model,
        d_ff=2 * d_model,
        condition_dim=d_model,
        levels=levels,
    )
    head = JointFlowHead(decoder, d_model, n_values, context=context, n_steps=n_steps)
    if rough:
        # What begins at zero would hide everything.
        head.double()
        for parameter in head.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=_generator())
    return head.eval()


def test_between_noise_and_data_lies_a_straight_line():
    x, noise = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double()
    time = torch.rand(2, 3).double()
    between, velocity = mixed(x, noise, time)
    for b in range(2):
        for place in range(3):
            t = time[b, place]
            expected = x[b, place] + t * (noise[b, place] - x[b, place])
            torch.testing.assert_close(between[b, place], expected)
    # Who goes on for what is left of the time is at the noise, and back by all of it at the data.
    torch.testing.assert_close(between + (1 - time[..., None]) * velocity, noise)
    torch.testing.assert_close(between - time[..., None] * velocity, x)


def test_a_flow_to_a_normal_distribution_is_a_linear_map():
    """Its velocity has a closed form, and takes e to m + s e."""
    mean, spread = 0.7, 0.2
    noise = torch.linspace(-3, 3, 13, dtype=torch.float64)[:, None]

    def velocity(x, t):
        variance = (1 - t) ** 2 * spread**2 + t**2
        rest = (x - (1 - t) * mean) / variance
        return t * rest - (mean + (1 - t) * spread**2 * rest)

    errors = [
        float((follow(velocity, noise, n) - (mean + spread * noise)).abs().max())
        for n in (25, 50, 400)
    ]
    assert errors[0] < 0.08 and errors[2] < 0.006
    # Euler's rule: half the step, half the error.
    assert errors[1] == pytest.approx(errors[0] / 2, rel=0.25)


def test_what_is_there_goes_straight_and_leads_the_others():
    values = torch.tensor([[[2.0], [0.0]], [[-1.0], [0.0]]]).double()
    stays = torch.tensor([True, False]).view(1, 2, 1).expand(2, 2, 1)
    noise, seen = torch.randn(2, 2, 1).double(), []

    def velocity(x, t):
        seen.append((x.clone(), t))
        # The second is to be what the first is on its way to.
        target = (x[:, :1] - t * noise[:, :1]) / (1 - t) if t < 1 else values[:, :1]
        return torch.cat([torch.full_like(target, 9.0), (x[:, 1:] - target) / t], dim=1)

    drawn = follow(velocity, noise, 10, (values, stays))
    torch.testing.assert_close(drawn, values[:, :1].expand(-1, 2, -1))
    for x, t in seen:
        torch.testing.assert_close(x[:, 0], (1 - t) * values[:, 0] + t * noise[:, 0])


def test_guided_is_farther_than_the_condition():
    x = torch.randn(2, 3, 1)

    def say(rows):
        return rows + torch.arange(len(rows)).view(-1, 1, 1)

    assert torch.equal(guided(say, x, None), say(x))
    # Rows of x have numbers 0 and 1 with the condition, and 2 and 3 without.
    expected = x + torch.tensor([2.0, 3.0]).view(2, 1, 1) + 3.0 * -2
    torch.testing.assert_close(guided(say, x, 3.0), expected)


def test_a_new_head_says_nothing():
    head, x = _head("noisy", rough=False), torch.randn(2000, 6, 3)
    with torch.no_grad():
        loss = head.loss(torch.randn(2000, 8), x, _generator())
    assert loss.shape == (2000, 6)
    # The error of no velocity is that of noise minus data.
    assert float(loss.mean()) == pytest.approx(1 + float(x.square().mean()), rel=0.03)


def test_a_group_has_one_time_and_groups_have_their_own(monkeypatch):
    head, x, times = _head("noisy"), torch.randn(4, 6, 3).double(), []
    velocity = head.velocity
    monkeypatch.setattr(head, "velocity", lambda y, t, *a: (times.append(t), velocity(y, t, *a))[1])
    head.loss(torch.randn(4, 8).double(), x, _generator())
    (time,) = times
    assert time.shape == (4, 3) and len(time.unique()) == 12
    assert time.min() >= 0 and time.max() <= 1


@pytest.mark.parametrize("context", ["none", "noisy", "clean"])
def test_who_sees_whom(context):
    head = _head(context)
    x, clean, z = (torch.randn(2, 6, n).double() for n in (3, 3, 8))
    time = torch.rand(2, 3).double()
    with torch.no_grad():
        before = head.velocity(x, time, z, clean)
        for place in range(6):
            here, later = LEVELS == LEVELS[place], LEVELS > LEVELS[place]
            for which in ("x", "time", "clean"):
                parts = {"x": x.clone(), "time": time.clone(), "clean": clean.clone()}
                parts[which][:, LEVELS[place] if which == "time" else place] += 0.3
                after = head.velocity(parts["x"], parts["time"], z, parts["clean"])
                changed = (after != before).any(dim=2).any(dim=0)
                expected = {
                    "none": torch.zeros_like(here) if which == "clean" else here,
                    "noisy": torch.zeros_like(here) if which == "clean" else here | later,
                    "clean": later if which == "clean" else here,
                }[context]
                assert torch.equal(changed, expected), (which, place)


@pytest.mark.parametrize("guidance", [None, 2.5])
@pytest.mark.parametrize("context", ["noisy", "clean"])
def test_a_group_drawn_from_states_sees_what_one_pass_sees(context, guidance):
    """In one step of Euler's rule, what is drawn is the noise minus the velocity at time 1."""
    head = _head(context, n_steps=1)
    x, (told, untold) = torch.randn(2, 6, 3).double(), torch.randn(2, 2, 8).double()
    z = told if guidance is None else torch.cat([told, untold])
    state = head.init_state(z)
    with torch.no_grad():
        for group in range(3):
            here = group == LEVELS
            before = x[:, LEVELS == group - 1]
            rows = before if guidance is None else torch.cat([before, before])
            drawn_from, state = head.extend(rows if group else rows[:, :0], state)
            drawn = head.sample(drawn_from, guidance=guidance, generator=_generator(group))
            noise = noise_like(x[:, here], _generator(group))
            between = torch.where(here[:, None], torch.zeros_like(x), x)
            between[:, here] = noise
            time = (torch.arange(3) == group).double().expand(2, 3)
            velocity = head.velocity(between, time, told, x)[:, here]
            if guidance is not None:
                other = head.velocity(between, time, untold, x)[:, here]
                velocity = other + guidance * (velocity - other)
            torch.testing.assert_close(drawn, noise - velocity, atol=1e-10, rtol=1e-8)


def test_a_group_alone_sees_what_one_pass_sees():
    head = _head("none", n_steps=1)
    noise, z = torch.randn(2, 6, 3).double(), torch.randn(2, 6, 8).double()
    with torch.no_grad():
        for group in range(3):
            here = group == LEVELS
            drawn = head.sample(head.alone(z[:, here], 2 * group), generator=_generator(group))
            start = noise_like(noise[:, here], _generator(group))
            changed = noise.clone()
            changed[:, here] = start
            velocity = head.velocity(changed, torch.ones(2, 3).double(), z)[:, here]
            torch.testing.assert_close(drawn, start - velocity, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(("context", "n_steps"), [("noisy", 400), ("clean", 150)])
def test_vectors_agree_in_a_group_and_follow_the_group_before(context, n_steps):
    """The first two are 1 or -1 as one, and the next two the opposite: half each, nothing else."""
    levels = torch.tensor([0, 0, 1, 1])
    head = _head(context, levels, rough=False, d_model=16, n_values=1).train()
    optimizer, generator = torch.optim.Adam(head.parameters(), lr=1e-2), _generator()
    # Steps that grow smaller, over halves of each, leave nothing to the rounding of a machine.
    slower = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, n_steps)
    sign = torch.tensor([1.0, -1.0]).repeat(32)[:, None, None]
    x = sign * torch.tensor([1.0, 1.0, -1.0, -1.0]).view(1, 4, 1)
    for _ in range(n_steps):
        optimizer.zero_grad()
        head.loss(torch.zeros(64, 16), x, generator).mean().backward()
        optimizer.step()
        slower.step()
    state = head.eval().init_state(torch.zeros(200, 16))
    with torch.inference_mode():
        z, state = head.extend(torch.zeros(200, 0, 1), state)
        one = head.sample(z, generator=generator)
        z, state = head.extend(one, state)
        other = head.sample(z, generator=generator)
    signs = torch.cat([one, other], dim=1)[..., 0].sign()
    as_it_should = (signs == signs[:, :1] * torch.tensor([1, 1, -1, -1])).all(dim=1)
    # Signs that were drawn by themselves would be so in one of eight.
    assert as_it_should.float().mean() > 0.85
    assert 0.35 < float((signs[:, 0] > 0).float().mean()) < 0.65
    assert float((one.abs() - 1).abs().mean()) < 0.3


def test_there_are_three_contexts():
    with pytest.raises(ParameterError, match="context must be one of"):
        _head("dirty")
