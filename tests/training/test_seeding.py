import random
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
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


def test_one_seed_inside_of_another():
    before = torch.get_rng_state()
    with seeded(1):
        expected = [torch.rand(3) for _ in range(2)]
    found = []

    def build():
        with seeded(1):
            found.append(torch.rand(3))
            with seeded(2):
                torch.rand(3)
            found.append(torch.rand(3))

    # A thread of its own, so that waiting for oneself ends the test and not the suite.
    thread = threading.Thread(target=build, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_fork_beside_a_build_finds_the_generator_as_it_was():
    code = """
        import os, threading, time, warnings
        import torch
        from tsar.training.seeding import seeded
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        before, inside = torch.get_rng_state(), threading.Event()

        def build():
            with seeded(5):
                inside.set()
                time.sleep(0.3)

        thread = threading.Thread(target=build)
        thread.start()
        inside.wait()
        pid = os.fork()
        if pid == 0:
            try:
                assert torch.equal(before, torch.get_rng_state())
                with seeded(1):
                    torch.rand(1)
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        thread.join()
        with seeded(1):
            pass
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
