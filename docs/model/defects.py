"""Defects planted in the model, each of which the checker has to catch.

    python3 defects.py                  # all of them, at most 3000 seeds each
    python3 defects.py 500 no_floor     # seeds at most, names

A defect is a piece of text of the model and what stands in its place; nothing is patched at run time, so a defect that no
longer fits the model is an error and not a defect that is never seen.
"""
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

HERE = Path(__file__).parent


class Defect(NamedTuple):
    """One wrong piece of text. `file` is the module that it stands in."""
    old: str
    new: str
    file: str = "protocol"


DEFECTS = {
    # -- welcome
    "welcome_unchecked": [Defect("if not set(cast.devices) <= set(target.reach) or not target.room():", "if False:")],
    "welcome_ignores_room": [Defect(" or not target.room():", ":")],
    "welcome_ignores_reach": [Defect("not set(cast.devices) <= set(target.reach) or ", "")],
    "room_free_before_gone": [Defect("return len(self.instances) < self.capacity", '''return sum(
            instance.state != "gone" for instance in self.instances.values()) < self.capacity''')],
    "late_welcome_after_undo": [Defect("if progress.row < index and (index >= CLOSE or not progress.undone):",
                                       'if progress.row < index and (index >= CLOSE or not progress.undone'
                                       ' or message.kind == "Welcome"):')],
    "undo_keeps_staged": [Defect('        target.instances[cast.saga].want("gone")\n', "")],
    "welcome_lost_unnoticed": [
        Defect('''    if target.instances[cast.saga].lost:
        return [tell("Abort", MANAGER, cast)]
    return [tell("Freeze"''', '''    return [tell("Freeze"'''),
        Defect('''    if instance.lost:
        return REFUSE
    facts.setdefault("chunks"''', '''    facts.setdefault("chunks"''')],
    # -- three-step freeze and reports
    "halted_any_revision": [Defect('revision != instance.revision:\n            return []',
                                   'revision != instance.revision and phase != "frozen":\n            return []')],
    "report_any_revision": [Defect(" or revision != instance.revision:", ":")],
    "grant_before_halted": [Defect('''    if instance.reached != "frozen":
        return AWAIT
    instance.want("frozen")''', '''    instance.listed = tuple(sorted(instance.table.values()))
    instance.want("frozen")''')],
    "thaw_ignores_pending_halt": [Defect('''        if PHASE[state] != PHASE[self.state]:
''', '''        if PHASE[state] != PHASE[self.state] and self.state != "freezing":
''')],
    "halt_of_a_booting_guest": [Defect('''    if instance.state == "leaving" and instance.reached != "running":
        return AWAIT                            # booting anew; there is nothing yet to halt
''', "")],
    "open_before_resumed": [Defect('(instance.state, instance.reached) != ("running", "running")',
                                   'instance.state != "running"')],
    "report_said_once": [Defect("            phase, at = self.phase[key] = wanted, revision\n",
                                "            phase, at = self.phase[key] = wanted, revision\n        else:\n            return []\n")],
    "list_at_freezing": [Defect("    instance.want(\"freezing\")\n", '''    if instance.state == "leaving":
        facts["early"] = tuple(sorted(instance.table.values()))
    instance.want("freezing")
'''), Defect("in instance.listed:", 'in facts["early"]:')],
    "manifest_of_what_is_left": [Defect("total=facts[\"total\"])", "total=len({*memory, *instance.table}))")],
    "load_before_all_is_here": [Defect('return phase == "filling" and whole', 'return phase == "filling"')],
    "commit_before_loaded": [Defect('return DONE if instance.reached == "loaded" else AWAIT', "return DONE")],
    "forget_before_gone": [Defect('''        if instance.reached != "gone":
            return AWAIT
        del''', "        del")],
    "resume_says_before_running": [Defect('return DONE if instance.reached == "running" else AWAIT', "return DONE")],
    "report_wakes_nobody": [Defect("        says = self.woken(key)\n", "        says = []\n")],
    "death_unnoticed": [Defect('phase == "dead" and revision >= instance.born:', "False:")],
    "death_of_any_machine": [Defect('phase == "dead" and revision >= instance.born:', 'phase == "dead":')],
    # -- the idle rule
    "no_idle_rule": [Defect("        used |= self.named()\n", "")],
    "idle_rule_ends_at_prepare": [Defect("progress.row < RESUME:\n                slots", "progress.row < 0:\n                slots")],
    "frozen_or_staged_page_in_changes_table": [Defect(' and key in self.running:     # elsewhere', ':     # elsewhere')],
    "table_changes_and_no_idle_rule": [Defect(' and key in self.running:     # elsewhere', ':     # elsewhere'),
                                       Defect("        used |= self.named()\n", "")],
    "late_pages_fill": [Defect('instance and instance.state != "gone" and phase == "filling" and', "instance and key in self.ram and")],
    # -- far pages
    "far_pages_granted": [Defect("        if device in cast.devices:              # what lies elsewhere is sent as content\n"
                                 "            facts[\"grants\"]", "        if True:\n            facts[\"grants\"]")],
    "far_pages_dropped": [Defect("    for page in [page for page in instance.table if page not in entries and page not in memory]:",
                                 "    for page in []:")],
    "far_pages_not_counted": [Defect("total=facts[\"total\"])", "total=len({*memory, *entries}))")],
    "far_slots_lost_at_freeze": [Defect("        if device in cast.devices:              # what", '''        if device not in cast.devices:
            source.slots.pop((device, number))
        else:  # what''')],
    # -- the user
    "cancel_decides_itself": [Defect('''            return [tell("Abort", MANAGER, self.sagas[saga].facts["cast"])]
''', '''            self.asked[request] = "undone"
            return [tell("Abort", MANAGER, self.sagas[saga].facts["cast"]), *self.verdict(request)]
''')],
    "asking_twice_is_asking_twice": [Defect("        if request not in self.asked:\n", "        if True:\n")],
    "cancel_leaves_no_tombstone": [Defect('saga = self.asked.setdefault(request, "undone")',
                                          'saga = self.asked.get(request)'),
                                   Defect("        saga = self.asked[request]\n", '        saga = self.asked.get(request, "undone")\n')],
    # -- the shell
    "say_before_store": [Defect('''            says = actor.receive(message)
''', '''            ahead = copy.deepcopy(actor).receive(message)
            self.send(ahead)
            self.crash_point(name)
            says = actor.receive(message)
''', "checker"), Defect("import random\n", "import copy\nimport random\n", "checker")],
    "no_floor": [Defect("return number >= floor", "return True")],
    "open_twice": [Defect('''        if not instance or (instance.state, instance.reached) != ("running", "running"):
''', '''        if not instance or instance.state == "gone":
''')],
    "opener_never_asks_again": [Defect('''            if saga[0] == self.name:
                cast = progress.facts["cast"]
                says +=''', '''            if False:
                cast = progress.facts["cast"]
                says +=''')],
    "device_never_repeats": [Defect('''        if progress.row < index and (index''', '''        if progress.row == index == ROWS["Grant"][0]:
            return []
        if progress.row < index and (index''')],
    # -- grants and their undo
    "grant_keeps_generation": [Defect('''        self.slots[number] = Slot(owner, slot.generation + 1, returned, content=slot.content)
        return slot.generation + 1''', '''        self.slots[number] = Slot(owner, slot.generation, returned, content=slot.content)
        return slot.generation''')],
    "undo_without_tombstone": [Defect("            progress.undone = True\n        return self.said(cast, progress)\n\n    def role",
                                      "            progress.undone = progress.row >= 0\n        return self.said(cast, progress)\n\n    def role")],
    "thaw_before_regrant": [Defect("route = [MANAGER, *cast.devices, cast.source, cast.target]",
                                   "route = [MANAGER, cast.source, *cast.devices, cast.target]")],
    "unlist_at_abort": [Defect('''        manager.placement[cast.vm].lock = None


def welcome''', '''        manager.placement[cast.vm].lock = None
    for device in cast.devices:
        if device in manager.shared:
            manager.shared[device].pending.discard(cast.saga)
            manager.tidy(device)


def welcome''')],
    "thaw_on_timeout": [Defect('''                cast = progress.facts["cast"]
                says +=''', '''                cast = progress.facts["cast"]
                if progress.row == ROWS["Granted"][0] and self.count % 5 == 1:
                    progress.facts["restored"] = {}
                    thaw(self, cast, progress.facts)
                says +=''')],
    # -- the pivot
    "resume_before_commit": [Defect('''def ask_commit(target, cast, facts):
''', '''def ask_commit(target, cast, facts):
    target.instances[cast.saga].want("running")
''')],
    "abort_after_pivot": [Defect('''        if progress.row < PIVOT and not progress.undone:
            UNDO["manager"]''', '''        if progress.row < CLOSE and not progress.undone:
            UNDO["manager"]''')],
    "commit_after_abort": [Defect("if progress.row < index and (index >= CLOSE or not progress.undone):",
                                  "if progress.row < index and (index >= CLOSE or index == PIVOT or not progress.undone):"),
                           Defect('''    if (place.host, place.epoch, place.lock) != (cast.source, cast.epoch, cast.saga):
        return REFUSE
''', ""), Defect("        if progress.row >= CLOSE or not progress.undone:",
                 "        if progress.row >= PIVOT or not progress.undone:")],
    "list_at_commit": [Defect("        manager.shared.setdefault(device, Entry()).pending.add(cast.saga)\n", "        pass\n"),
                       Defect("        manager.assign(device, number, cast.target, generation)\n    facts",
                              "        manager.shared.setdefault(device, Entry())\n"
                              "        manager.assign(device, number, cast.target, generation)\n    facts")],
    "boot_twice": [Defect("        if self.seen.get(vm, 0) < epoch:\n", '''        if ("boot", vm, epoch) not in self.instances:
''')],
    # -- slots and pages
    "free_while_copying": [Defect("        used |= {io.slot for io in self.io.values()}\n", "")],
    "page_out_unchecked": [Defect("return page not in table and self.ram[key].get(page) == io.content", "return page not in table")],
    "pager_ignores_freeze": [Defect('serves = phase == "running" or (io and phase in ("frozen", "loaded") and io.aim == "in")',
                                    'serves = phase != "none"'), Defect("        self.cancel(key)\n        if phase", "        if phase")],
    "return_before_switch": [Defect("        return self.page_in(key, page, \"copy\")",
                                    '        return self.page_in(key, page, "copy") + [tell("Return", self.instances[key].table[page][0],'
                                    ' host=self.name, slots={self.instances[key].table[page][1]: self.slots[self.instances[key].table[page]]})]')],
    "lose_any_generation": [Defect("if self.slots.get(slot, 0) <= generation:", "if True:")],
    "write_by_anyone": [Defect("good = self.holds(host, number, generation) and stamp > self.slots[number].stamp", "good = True")],
    "write_without_stamp": [Defect(" and stamp > self.slots[number].stamp", "")],
    "fence_before_undo": [Defect('''            if any(host in self.players(progress) for progress in self.sagas.values()):
                continue
''', "")],
    "dead_are_waited_for": [Defect("        if name not in cast.dead:\n            return [tell(\"Undo\"", "        if True:\n            return [tell(\"Undo\"")],
    "survey_reports_grants": [Defect("if slot.owner == self.home and slot.returned}", "if slot.owner == self.home}")],
}


def planted(name):
    """The model's two modules with this defect in them, or as they are."""
    modules = {}
    for file in ("protocol", "checker"):
        text = (HERE / f"{file}.py").read_text()
        for defect in [defect for defect in DEFECTS.get(name, ()) if defect.file == file]:
            if text.count(defect.old) != 1:
                raise LookupError(f"{name}: stands {text.count(defect.old)} times in {file}.py: {defect.old!r}")
            text = text.replace(defect.old, defect.new)
        modules[file] = ModuleType(file), text
    return modules


def checker(name):
    """A checker over the model with this defect (None: without); the real modules are put back."""
    modules = planted(name)
    kept = {file: sys.modules.get(file) for file in modules}
    try:
        for file, (module, text) in modules.items():
            sys.modules[file] = module
            exec(compile(text, f"{file} with {name}", "exec"), module.__dict__)
    finally:
        for file, module in kept.items():
            if module is None:
                del sys.modules[file]
            else:
                sys.modules[file] = module
    return modules["checker"][0]


def seeds_until_caught(name, most):
    """The first seed whose history violates something, and what; or (None, "")."""
    history = checker(name).history
    for seed in range(1, most + 1):
        violation, _ = history(seed)
        if violation:
            return seed, violation
    return None, ""


def main(most, names):
    caught = 0
    for name in names:
        seed, violation = seeds_until_caught(name, most)
        caught += seed is not None
        print(f"{name:45} {seed or 'NOT CAUGHT':>10}  {violation[:90]}", flush=True)
    print(f"{caught} of {len(names)} caught within {most} seeds")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else 3000, arguments[1:] or list(DEFECTS))
