"""Virtual time: nothing waits, equal deadlines ring in order, processes freeze and die."""

import asyncio

import pytest

from scenarios.sim.loop import Deadlock, VirtualLoop, run
from scenarios.sim.process import Killed, Process


def test_a_day_passes_in_no_time():
    async def main(loop: VirtualLoop) -> float:
        await asyncio.sleep(86_400)
        return loop.time()

    assert run(main) == 86_400


def test_timers_of_one_deadline_ring_in_the_order_in_which_they_were_set():
    rang: list[int] = []

    async def main(loop: VirtualLoop) -> None:
        for number in range(50):
            loop.call_at(1.0, rang.append, number)
        await asyncio.sleep(1.0)

    run(main)

    assert rang == list(range(50))


def test_waiting_for_what_never_comes_is_found_out():
    async def main(loop: VirtualLoop) -> None:
        await loop.create_future()

    with pytest.raises(Deadlock):
        run(main)


def test_a_frozen_process_goes_on_where_it_was():
    async def main(loop: VirtualLoop) -> list[float]:
        steps: list[float] = []

        async def walk() -> None:
            while True:
                await asyncio.sleep(1.0)
                steps.append(loop.time())

        process = Process("walker")
        process.start(walk())
        await asyncio.sleep(2.5)
        process.freeze()
        await asyncio.sleep(10.0)
        process.thaw()
        await asyncio.sleep(2.0)
        return steps

    assert run(main) == [1.0, 2.0, 12.5, 13.5, 14.5]


def test_a_killed_process_takes_no_step_more_not_even_to_clean_up():
    cleaned: list[str] = []

    async def main(_loop: VirtualLoop) -> list[str]:
        async def work() -> None:
            try:
                await asyncio.sleep(1.0)
            finally:
                cleaned.append("by itself")

        process = Process("worker")
        process.start(work())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(5.0)
        return list(cleaned)

    assert run(main) == []


def test_a_process_that_dies_in_the_middle_of_a_step_is_dead():
    async def main(_loop: VirtualLoop) -> bool:
        process = Process("worker")

        async def work() -> None:
            process.die()

        task = process.start(work())
        await asyncio.sleep(1.0)
        assert isinstance(task.exception(), Killed)
        return process.alive

    assert run(main) is False
