"""One disturbed command from beginning to end: run, judged, and tried again in peace."""

from __future__ import annotations

import threading
import time

from retrograde.recording.bundle import Recording
from retrograde.recording.claim import PARTIAL
from tests.command import Done
from tests.faults import calls, judge
from tests.faults.commands import COMMANDS, RECORDED, Command, remove_made
from tests.faults.fault import Fault, Trial
from tests.faults.judge import Verdict
from tests.faults.place import Place, Stock
from tests.faults.processes import HUNG, Running, Setting

AT_ONCE = "at once"


class Laboratory:
    """A stock, and what commands answer undisturbed, found out when first needed."""

    def __init__(self, stock: Stock) -> None:
        self.stock = stock
        self._answers: dict[tuple[str, bool], object] = {}
        self._seconds: dict[tuple[str, bool], float] = {}
        self._counts: dict[tuple[str, bool], dict[str, int]] = {}
        self._lock = threading.Lock()

    def expected(self, name: str, cache: bool) -> object:
        """Return the answer of an undisturbed command."""
        self._try(name, cache)
        return self._answers[name, cache]

    def seconds(self, name: str, cache: bool) -> float:
        """Return how long it takes undisturbed."""
        self._try(name, cache)
        return self._seconds[name, cache]

    def counts(self, name: str, cache: bool) -> dict[str, int]:
        """Return how many calls of each kind it makes undisturbed."""
        with self._lock:
            if (name, cache) not in self._counts:
                place = self.stock.place(cache)
                with Running(COMMANDS[name], place, calls.counting(place)) as running:
                    done = running.finish()
                    assert done.status == 0, (name, done)
                self._counts[name, cache] = calls.counts(place)
                place.remove()
            return self._counts[name, cache]

    def _try(self, name: str, cache: bool) -> None:
        with self._lock:
            if (name, cache) in self._answers:
                return
            place, command = self.stock.place(cache), COMMANDS[name]
            began = time.monotonic()
            with Running(command, place, Setting()) as running:
                done = running.finish()
                assert done.status == 0, (name, done)
                assert running.orphans() == []
            self._seconds[name, cache] = time.monotonic() - began
            self._answers[name, cache] = command.answer(place, done)
            assert place.leftovers() == []
            place.remove()

    def run(self, trial: Trial) -> Verdict:
        """Run one trial and judge it."""
        for name in trial.commands:
            self._try(name, trial.cache)
        place = self.stock.place(trial.cache)
        verdict = Verdict(str(trial), trial.kind)
        try:
            self._disturb(trial, place, verdict)
        finally:
            trial.fault.lift(place)
            place.remove()
        return verdict

    def _disturb(self, trial: Trial, place: Place, verdict: Verdict) -> None:
        fault, before = trial.fault, place.own_files()
        fault.prepare(place)
        commands = [COMMANDS[name] for name in trial.commands]
        ends = self._run_disturbed(fault, commands, place, verdict)
        verdict.met = verdict.met and fault.met(place)
        verdict.said = [f"exit {done.status}: {done.stderr}" for done in ends]
        again = [
            command
            for command, done in zip(commands, ends, strict=True)
            if not self._judge_first(trial, command, place, done, verdict)
        ]
        if not any(fault.took(done) for done in ends):
            self._note_leftovers(place, verdict, AT_ONCE, trial)
        fault.lift(place)
        for command in again or commands[:1]:
            self._judge_again(trial, command, place, verdict)
        self._note_leftovers(place, verdict, "after the next command", trial)
        if place.own_files() != before:
            changed = {name for name, it in place.own_files().items() if before.get(name) != it}
            verdict.add(judge.LOSS, f"changed: {changed or 'removed'}")

    def _run_disturbed(
        self, fault: Fault, commands: list[Command], place: Place, verdict: Verdict
    ) -> list[Done]:
        ends: dict[int, Done] = {}

        def run(number: int, command: Command) -> None:
            with Running(command, place, fault.setting(place)) as running:
                acted: list[bool] = []
                acting = threading.Thread(target=lambda: acted.append(fault.act(running)))
                acting.start()
                ends[number] = running.finish()
                acting.join()
                verdict.met = verdict.met and acted == [True]
                if ends[number].status == HUNG and not fault.took(ends[number]):
                    verdict.add(judge.HANG, f"{command.name} did not end")
                for orphan in running.orphans():
                    verdict.add(judge.ORPHAN, orphan)

        threads = [threading.Thread(target=run, args=one) for one in enumerate(commands)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [ends[number] for number in range(len(commands))]

    def _judge_first(
        self, trial: Trial, command: Command, place: Place, done: Done, verdict: Verdict
    ) -> bool:
        """Judge how a disturbed command ended; return whether it did its work."""
        fault = trial.fault
        if done.status == HUNG:
            return False
        if done.status == 0:
            if fault.shortens and command.name == "record":
                return self._judge_shorter(place, command, verdict)
            if fault.cuts_client and command.client:
                return False
            expected = self.expected(command.name, trial.cache)
            return judge.judge_answer(verdict, place, command, done, expected)
        if not fault.took(done):
            silent = fault.may_be_silent
            judge.judge_end(verdict, done, allowed=fault.allowed, may_be_silent=silent)
        return False

    def _judge_shorter(self, place: Place, command: Command, verdict: Verdict) -> bool:
        """Judge a recording that was ended before the guest did: it is one as far as it goes."""
        try:
            recording = Recording.open(place.out / command.makes)
            recording.check_digests()
            console = recording.console_bytes()
        except Exception as error:
            verdict.add(judge.ANSWER, f"the recording cannot be used: {error!r}")
            return False
        whole = self.expected("record", True)[1]  # type: ignore[index]
        if not whole.startswith(console):
            verdict.add(judge.ANSWER, "the console is not the beginning of what it was")
        return False

    def _judge_again(self, trial: Trial, command: Command, place: Place, verdict: Verdict) -> None:
        """Do the same in peace: it must find its way, whatever the first left."""
        made = command.makes and (place.out / command.makes).exists()
        if made and not trial.fault.shortens:
            # Whole, though the command did not live to say so; anything less is a fault.
            expected = self.expected(command.name, trial.cache)
            judge.judge_answer(verdict, place, command, Done(0, b"", ""), expected)
        remove_made(place, command)
        with Running(command, place, Setting()) as running:
            done = running.finish()
            for orphan in running.orphans():
                verdict.add(judge.ORPHAN, f"of the next command: {orphan}")
        if done.status == HUNG:
            verdict.add(judge.HANG, f"{command.name} in peace did not end")
        elif done.status:
            verdict.add(judge.CODE, f"{done.status} in peace: {done.stderr[-1500:]}")
        else:
            expected = self.expected(command.name, trial.cache)
            judge.judge_answer(verdict, place, command, done, expected)

    def _note_leftovers(self, place: Place, verdict: Verdict, when: str, trial: Trial) -> None:
        kept = any("is kept as" in said for said in verdict.said)
        for name in place.leftovers():
            if kept and when == AT_ONCE and name == f"out/{RECORDED}{PARTIAL}":
                continue  # what was recorded, and we are told of it
            verdict.add(judge.LEFTOVER, f"{when}: {name}")
        made = {f"{RECORDED}{PARTIAL}" if kept and when == AT_ONCE else ""}
        made |= {COMMANDS[name].makes for name in trial.commands}
        for name in place.made():
            if name not in made:
                verdict.add(judge.LEFTOVER, f"{when}: out/{name}")
