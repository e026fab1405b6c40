import torch
from torch.nn import functional as F

from tsar.core.grid_state_space import GridStateSpace


def _random(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _space():
    torch.manual_seed(0)
    space = GridStateSpace(5, d_state=3, smallest_step=0.1, largest_step=1.0).double()
    with torch.no_grad():
        space.coupling.copy_(_random(2, 5, 3))
    return space


@torch.no_grad()
def test_it_is_its_formulas_cell_by_cell():
    space, x = _space(), _random(2, 4, 6, 5)
    result, decay, w = space(x), space.log_decay.exp(), space.coupling.tanh()
    for b in range(2):
        states = {}
        nothing = torch.zeros(5, 3, dtype=torch.float64)
        for v in range(4):
            for t in range(6):
                cell = x[b, v, t]
                along, down = F.softplus(space.step(cell)).chunk(2)
                enter_1, enter_2, leave_1, leave_2 = space.select(cell).chunk(4)
                left_1, left_2 = states.get((v, t - 1), (nothing, nothing))
                above_1, above_2 = states.get((v - 1, t), (nothing, nothing))
                e = (-along[:, None] * decay[0]).exp()
                h1 = e * left_1 + (1 - e) * w[0] * left_2
                h1 = h1 + (1 - e) / decay[0] * enter_1 * cell[:, None]
                e = (-down[:, None] * decay[1]).exp()
                h2 = e * above_2 + (1 - e) * w[1] * above_1
                h2 = h2 + (1 - e) / decay[1] * enter_2 * cell[:, None]
                states[v, t] = h1, h2
                torch.testing.assert_close(result[b, v, t], h1 @ leave_1 + h2 @ leave_2)


def test_first_steps_are_in_their_range():
    space = GridStateSpace(64, smallest_step=0.01, largest_step=0.2)
    steps = F.softplus(space.step.bias.detach())
    assert 0.0099 < float(steps.min()) < 0.03 and 0.1 < float(steps.max()) < 0.2001


@torch.no_grad()
def test_a_column_that_is_not_there_lets_states_pass():
    space, x = _space(), _random(2, 4, 6, 5)
    mask = torch.ones(2, 4, 6, dtype=torch.bool)
    mask[:, :, 2] = False
    others = [0, 1, 3, 4, 5]
    changed = torch.where(mask[..., None], x, 9.0)
    torch.testing.assert_close(
        space(changed, mask=mask)[:, :, others], space(x, mask=mask)[:, :, others]
    )
    assert not torch.allclose(space(x, mask=mask)[:, :, others], space(x)[:, :, others])
    space.coupling.zero_()  # with it, no state turns around a corner there
    torch.testing.assert_close(space(x, mask=mask)[:, :, others], space(x[:, :, others]))
