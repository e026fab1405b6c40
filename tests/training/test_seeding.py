import random
import threading

import numpy as np
import torch
from torch import nn

from tsar.training.seeding import make_generator, seeded


def test_same_seed_same_network_and_nothing_else_moves():
    torch.manual_seed(17)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    networks = []
    for seed in (1, 1, 2):
        with seeded(seed):
            networks.append(nn.Linear(3, 5).weight)
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def test_state_comes_back_after_an_error():
    before = torch.get_rng_state()
    try:
        with seeded(1):
            torch.rand(3)
            raise KeyError
    except KeyError:
        pass
    assert torch.equal(before, torch.get_rng_state())


def test_threads_do_not_mix():
    results = {}

    def build(seed):
        with seeded(seed):
            results[seed] = [torch.rand(1000) for _ in range(20)]

    threads = [threading.Thread(target=build, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(4):
        with seeded(seed):
            assert all(torch.equal(t, torch.rand(1000)) for t in results[seed])


def test_generator_repeats():
    draws = [torch.rand(5, generator=make_generator(3)) for _ in range(2)]
    assert torch.equal(*draws)
