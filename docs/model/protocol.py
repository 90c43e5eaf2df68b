"""Migration of a virtual machine together with its swapped-out pages.

Four kinds of actor play one table of rows, MIGRATION, and a handful of standing rules (returns,
surveys, fencing).  The shell of every actor is the same and its order is fixed:

    before (fill memory nobody sees yet) -> decide and store -> obey (machine follows record)
        -> say -> acknowledge

A crash may fall between any two of these.  Nothing that is said needs an outbox: every message
is a function of the record, and the opener's question makes its owner say it again.

A machine (QEMU and its pager) follows the record in its own time, also while its node is down, and
reports (revision, phase) as a level.  A row whose effect is the machine's waits for that report.
"""
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MANAGER = "manager"
DONE, WAIT, AWAIT, REFUSE = "done", "wait", "await", "refuse"      # AWAIT: for the machine
NEVER = 1 << 30                                 # a revision above all others
CHUNK = 2                                       # items in one Grant, Prepare or Pages message


class Cast(NamedTuple):
    """Who plays in a saga; carried by each of its messages."""
    saga: tuple                                 # (opener, number)
    floor: int                                  # the opener's sagas below this number are over
    vm: str
    epoch: int                                  # of the placement that the saga wants to replace
    instance: Any                               # the source instance
    source: str
    target: str
    devices: tuple                              # shared storage that source and target both reach
    dead: frozenset = frozenset()               # hosts declared dead, known to the manager


class Message(NamedTuple):
    kind: str
    to: str
    cast: Cast | None
    body: dict


class Row(NamedTuple):
    """A step: who plays it on which message, what it does, what it then says."""
    role: str
    on: str
    do: Callable
    say: Callable


@dataclass
class Progress:
    """What an actor remembers of one saga: the last row it did, or that it was undone."""
    row: int = -1
    undone: bool = False
    facts: dict = field(default_factory=dict)


def tell(kind, to, cast=None, **body):
    return Message(kind, to, cast, body)


def chunks(items):
    """The items in pieces of CHUNK, numbered; at least one piece."""
    pieces = [items[start:start + CHUNK] for start in range(0, len(items), CHUNK)] or [[]]
    return [(number, len(pieces), piece) for number, piece in enumerate(pieces)]


# ------------------------------------------------------------------------------------ the shell

class Actor:
    """A single thread over a durable record; plays the rows of its role."""

    def __init__(self, name):
        self.name, self.sagas, self.floors = name, {}, {}

    def before(self, message):
        """Effects that must precede their record; invisible until recorded, safe to repeat."""

    def obey(self):
        """Effects that follow the record; safe to repeat, and repeated at restart."""

    def restart(self, memory_lost=False):
        """What the actor does first after a crash."""
        self.obey()

    def tick(self):
        """All that the actor repeats on its timer."""
        return []

    def receive(self, message):
        """Decide and store in one transaction; return what is to be said."""
        if message.cast and not self.current(message.cast):
            return []
        if message.kind in ROWS:
            return self.play(message)
        return getattr(self, "on_" + message.kind.lower())(message, **message.body)

    def current(self, cast):
        """False for a message of a saga that is over; forgets the sagas below the floor."""
        opener, number = cast.saga
        floor = self.floors[opener] = max(self.floors.get(opener, 0), cast.floor)
        for saga in [saga for saga in self.sagas if saga[0] == opener and saga[1] < floor]:
            del self.sagas[saga]
        return number >= floor

    def progress(self, cast):
        """The record of the saga; its opener never makes a second one."""
        if cast.saga not in self.sagas and cast.saga[0] != self.name:
            self.sagas[cast.saga] = Progress()
        return self.sagas.get(cast.saga)

    def play(self, message):
        """Do the row once, then say (again) whatever the last row done here has to say."""
        cast, progress = message.cast, self.progress(message.cast)
        if progress is None:
            return []
        index, row = ROWS[message.kind]
        if progress.row < index and (index >= CLOSE or not progress.undone):
            outcome = row.do(self, cast, progress.facts, **message.body)
            if outcome == AWAIT:
                progress.facts["waiting"] = message             # played again when the machine reports
            if outcome in (WAIT, AWAIT):
                return []
            if outcome == REFUSE:
                return [tell("Abort", MANAGER, cast)]
            progress.row = index
        return self.said(cast, progress)

    def said(self, cast, progress):
        if progress.row >= CLOSE or not progress.undone:
            return MIGRATION[progress.row].say(self, cast, progress.facts) if progress.row >= 0 else []
        return undo_onward(self, cast, progress.facts.get("restored", {}))

    def woken(self, key):
        """The machine reported: play the rows again that wait for it."""
        says = []
        for progress in list(self.sagas.values()):
            message = progress.facts.get("waiting")
            if message and key in (message.cast.saga, message.cast.instance) and not progress.undone \
                    and progress.row < ROWS[message.kind][0]:
                says += self.play(message)
        return says

    def on_undo(self, message, restored):
        """Undo what was done, or leave a tombstone for what was not; pass it on."""
        cast, progress = message.cast, self.progress(message.cast)
        if progress is None:
            return []
        if progress.row < PIVOT and not progress.undone:
            progress.facts["restored"] = restored
            UNDO[self.role(cast)](self, cast, progress.facts)
            progress.undone = True
        return self.said(cast, progress)

    def role(self, cast):
        return {cast.source: "source", cast.target: "target", MANAGER: "manager"}.get(self.name, "device")


def undo_onward(actor, cast, restored):
    """The way back: devices, then the source, last the target; the dead are passed over."""
    route = [MANAGER, *cast.devices, cast.source, cast.target]
    for name in route[route.index(actor.name) + 1:]:
        if name not in cast.dead:
            return [tell("Undo", name, cast, restored=restored)]
    return [tell("Close", MANAGER, cast)]


def forward(cast, kind):
    """The way on after the pivot; a dead host's row is passed over."""
    for word, name in (("Resume", cast.target), ("Forget", cast.source))[kind == "Forget":]:
        if name not in cast.dead:
            return [tell(word, name, cast)]
    return [tell("Close", MANAGER, cast)]


# ------------------------------------------------------------------------ rows of the migration

def register(manager, cast, facts):
    """Lock the placement for this saga and list the devices as shared before any grant."""
    place = manager.placement[cast.vm]
    fresh = (place.host, place.epoch, place.lock, place.booting) == (cast.source, cast.epoch, None, False)
    if not fresh or manager.dead & {cast.source, cast.target}:
        return REFUSE
    place.lock = cast.saga
    facts["cast"] = cast
    for device in cast.devices:
        manager.shared.setdefault(device, Entry()).pending.add(cast.saga)
    return DONE


def release(manager, cast, facts):
    """Undo of register: unlock. The devices stay listed until the grants are known undone."""
    facts.setdefault("cast", cast)
    if manager.placement[cast.vm].lock == cast.saga:
        manager.placement[cast.vm].lock = None


def welcome(target, cast, facts):
    """Reach every device of the cast, have room (the record is the reservation), stage an empty machine."""
    instance = target.instances.get(cast.saga)
    if instance is None:
        if not set(cast.devices) <= set(target.reach) or not target.room():
            return REFUSE
        target.tokens += 1
        instance = target.instances[cast.saga] = Instance(cast.vm, cast.epoch + 1, "staged")
        instance.token = (target.name, target.tokens)
    if instance.lost:
        return REFUSE
    return DONE if instance.reached == "filling" else AWAIT


def ask_freeze(target, cast, facts):
    """The receiver is ready: where it listens and the token go to the source alone."""
    if target.instances[cast.saga].lost:
        return [tell("Abort", MANAGER, cast)]
    return [tell("Freeze", cast.source, cast, token=target.instances[cast.saga].token)]


def freeze(source, cast, facts, token):
    """Want the machine halted; when it reports that, and what is swapped where, fix the list of grants."""
    instance = source.instances[cast.instance]
    if instance.lost:
        return REFUSE
    facts["token"] = token
    if instance.state == "leaving" and instance.reached != "running":
        return AWAIT                            # booting anew; there is nothing yet to halt
    instance.want("freezing")
    if instance.reached != "frozen":
        return AWAIT
    instance.want("frozen")
    facts["grants"], facts["total"] = {}, instance.pages
    for device, number in instance.listed:
        if device in cast.devices:              # what lies elsewhere is sent as content
            facts["grants"].setdefault(device, {})[number] = source.slots[device, number]
    return DONE


def ask_grants(source, cast, facts):
    return [tell("Grant", device, cast, chunk=chunk, of=of, slots=dict(piece))
            for device, slots in facts["grants"].items() if device not in facts.get("granted", {})
            for chunk, of, piece in chunks(list(slots.items()))
            ] or [tell("Granted", source.name, cast, device=None, slots={})]


def thaw(source, cast, facts):
    """Undo of open and freeze: the slots are back under new generations; run on."""
    instance = source.instances[cast.instance]
    source.slots.update(facts["restored"])
    instance.want("running")
    if instance.lost:
        source.reboot(cast.instance)


def grant(device, cast, facts, chunk, of, slots):
    """Compare and set: every slot, or none, passes from the source to the target."""
    parts = facts.setdefault("parts", {})
    parts[chunk] = slots
    if len(parts) < of:
        return WAIT
    wanted = {number: generation for part in parts.values() for number, generation in part.items()}
    if not all(device.holds(cast.source, number, generation) for number, generation in wanted.items()):
        return REFUSE
    facts["granted"] = {number: device.give(number, cast.target) for number in wanted}
    return DONE


def regrant(device, cast, facts):
    """Undo of grant: the compensating grant, back to the source."""
    facts["restored"] = {**facts["restored"], **{
        (device.name, number): device.give(number, cast.source)
        for number, generation in facts.get("granted", {}).items()
        if device.holds(cast.target, number, generation)}}


def hand_over(source, cast, facts, device, slots):
    """Collect what each device granted; with the last one the instance can be sent."""
    granted = facts.setdefault("granted", {})
    if device is not None:
        granted[device] = slots
    if set(granted) < set(facts["grants"]):
        return WAIT
    return REFUSE if source.instances[cast.instance].lost else DONE


def send_instance(source, cast, facts):
    """Slots and generations on the bus; pages and the map page -> slot on the data channel."""
    instance, memory = source.instances[cast.instance], source.ram.get(cast.instance, {})
    if instance.lost:
        return [tell("Abort", MANAGER, cast)]
    slots = [((device, number), generation) for device, granted in facts["granted"].items()
             for number, generation in granted.items()]
    entries = {page: slot for page, slot in instance.table.items() if slot[0] in cast.devices}
    says = [tell("Prepare", cast.target, cast, chunk=chunk, of=of, slots=dict(piece), total=facts["total"])
            for chunk, of, piece in chunks(slots)]
    pages = [("page", page, content) for page, content in memory.items() if page not in entries]
    pages += [("entry", page, slot) for page, slot in entries.items()]
    says += [tell("Pages", cast.target, key=cast.saga, token=facts["token"],
                  pages={page: content for kind, page, content in piece if kind == "page"},
                  entries={page: slot for kind, page, slot in piece if kind == "entry"})
             for _, _, piece in chunks(pages) if piece]
    for page in [page for page in instance.table if page not in entries and page not in memory]:
        says += source.page_in(cast.instance, page)             # far: read from its slot, which stays ours
    return says


def prepare(target, cast, facts, chunk, of, slots, total):
    """Own the slots; when the channel has brought all that was promised the machine loads it."""
    instance = target.instances[cast.saga]
    if instance.lost:
        return REFUSE
    facts.setdefault("chunks", set()).add(chunk)
    for slot, generation in slots.items():
        target.gain(slot, generation)
        facts.setdefault("slots", {})[slot] = generation
    if len(facts["chunks"]) < of:
        return WAIT
    instance.manifest = (total, frozenset(facts.get("slots", {})))
    instance.want("loading")
    return DONE if instance.reached == "loaded" else AWAIT


def ask_commit(target, cast, facts):
    """A target that lost the memory it was sent would rather have the saga undone."""
    if target.instances[cast.saga].lost:
        return [tell("Abort", MANAGER, cast)]
    return [tell("Commit", MANAGER, cast, granted=facts.get("slots", {}))]


def discard(target, cast, facts):
    """Undo of welcome and prepare; the room is free when the machine is gone."""
    if cast.saga in target.instances:
        target.instances[cast.saga].want("gone")
        target.instances[cast.saga].table = {}
    for slot, generation in facts.get("slots", {}).items():
        target.lose(slot, generation)


def commit(manager, cast, facts, granted):
    """The pivot: the placement record names the target from here on."""
    place = manager.placement[cast.vm]
    if (place.host, place.epoch, place.lock) != (cast.source, cast.epoch, cast.saga):
        return REFUSE
    place.host, place.epoch, place.lock = cast.target, cast.epoch + 1, None
    for (device, number), generation in granted.items():
        manager.assign(device, number, cast.target, generation)
    facts["outcome"] = "done"
    return DONE


def resume(target, cast, facts):
    """Run the instance; without its memory it boots, as after any power failure."""
    instance = target.instances[cast.saga]
    instance.want("running")
    if instance.lost:
        target.reboot(cast.saga)
    return DONE if instance.reached == "running" else AWAIT


def forget(source, cast, facts):
    """End the source machine; then its granted slots are lent. Slots out of the target's reach fall idle."""
    instance = source.instances.get(cast.instance)
    if instance:
        instance.want("gone")
        if instance.reached != "gone":
            return AWAIT
        del source.instances[cast.instance]
    for device, slots in facts["granted"].items():
        for number, generation in slots.items():
            source.lose((device, number), generation)
    return DONE


def close(manager, cast, facts):
    """Nothing of the saga is outstanding anywhere."""
    for device in cast.devices:
        if device in manager.shared:
            manager.shared[device].pending.discard(cast.saga)
            manager.tidy(device)
    return DONE


def closed(source, cast, facts, outcome):
    """The opener drops its record; with it the floor rises. What is kept is the verdict."""
    source.asked[facts["request"]] = outcome
    del source.sagas[cast.saga]
    return WAIT


MIGRATION = (
    Row("source", "Migrate", None, lambda actor, cast, facts: [tell("Register", MANAGER, cast)]),
    Row("manager", "Register", register, lambda actor, cast, facts: [tell("Welcome", cast.target, cast)]),
    Row("target", "Welcome", welcome, ask_freeze),
    Row("source", "Freeze", freeze, ask_grants),
    Row("device", "Grant", grant, lambda actor, cast, facts: [
        tell("Granted", cast.source, cast, device=actor.name, slots=facts["granted"])]),
    Row("source", "Granted", hand_over, send_instance),
    Row("target", "Prepare", prepare, ask_commit),
    Row("manager", "Commit", commit, lambda actor, cast, facts: forward(cast, "Resume")),
    Row("target", "Resume", resume, lambda actor, cast, facts: forward(cast, "Forget")),
    Row("source", "Forget", forget, lambda actor, cast, facts: [tell("Close", MANAGER, cast)]),
    Row("manager", "Close", close, lambda actor, cast, facts: [
        tell("Closed", cast.source, cast, outcome=facts.get("outcome", "undone"))] if cast.source not in cast.dead else []),
    Row("source", "Closed", closed, None))
ROWS = {row.on: (index, row) for index, row in enumerate(MIGRATION)}
PIVOT, RESUME, FORGET, CLOSE = (ROWS[on][0] for on in ("Commit", "Resume", "Forget", "Close"))
UNDO = {"manager": release, "device": regrant, "source": thaw, "target": discard}


# ------------------------------------------------------------------------------------ the actors

@dataclass
class Slot:
    """One slot as its device knows it."""
    owner: str
    generation: int = 1                         # rises with each change of owner
    returned: bool = False                      # given back to its home, not granted to it
    stamp: tuple = (0, 0)                       # of the last write in this generation
    content: int = 0


class Device(Actor):
    """The arbiter of its slots."""

    def __init__(self, name, home, size):
        super().__init__(name)
        self.home, self.slots = home, {number: Slot(home) for number in range(size)}

    def holds(self, host, number, generation):
        return (self.slots[number].owner, self.slots[number].generation) == (host, generation)

    def give(self, number, owner, returned=False):
        """Change the owner; whatever the last owner has under way is refused from now on."""
        slot = self.slots[number]
        self.slots[number] = Slot(owner, slot.generation + 1, returned, content=slot.content)
        return slot.generation + 1

    def on_write(self, message, host, number, generation, stamp, content, job):
        good = self.holds(host, number, generation) and stamp > self.slots[number].stamp
        if good:
            self.slots[number].stamp, self.slots[number].content = stamp, content
        return [tell("Wrote", host, job=job, stamp=stamp, good=good)]

    def on_read(self, message, host, number, generation, stamp, job):
        good = self.holds(host, number, generation)
        return [tell("Data", host, job=job, stamp=stamp, good=good,
                     content=self.slots[number].content if good else None)]

    def on_return(self, message, host, slots):
        for number, generation in slots.items():
            if self.holds(host, number, generation):
                self.give(number, self.home, returned=True)
        return [tell("Taken", host, device=self.name, slots=slots)]

    def on_survey(self, message, asker):
        back = {number: slot.generation for number, slot in self.slots.items()
                if slot.owner == self.home and slot.returned}
        return [tell("Surveyed", asker, device=self.name, back=back)]

    def on_fence(self, message, host):
        """The host is dead: what it used goes home, what it has under way is refused."""
        for number, slot in self.slots.items():
            if slot.owner == host:
                self.give(number, self.home, returned=True)
        return [tell("Fenced", MANAGER, device=self.name, host=host)]


PHASE = {"staged": "filling", "loading": "loaded", "running": "running", "leaving": "running",
         "freezing": "frozen", "frozen": "frozen", "gone": "gone"}      # what a state wants of the machine


@dataclass
class Instance:
    """A virtual machine as one host knows it, named by the saga that brought it."""
    vm: str
    epoch: int
    state: str                                  # a key of PHASE
    table: dict = field(default_factory=dict)   # page -> slot, a (device, number); shared with the pager
    revision: int = 1                           # rises when the machine shall do something else
    born: int = 1                               # the revision in which its machine was started
    reached: str | None = None               # the phase that the machine reported in this revision
    listed: tuple = ()                          # with frozen: the slots that it reported
    pages: int = 0                              # with frozen: how many there are, in memory or out
    token: Any = None                           # staged: who may fill it
    manifest: tuple | None = None            # loading: (pages in all, slots) that the channel must bring
    lost: bool = False                          # its memory went with the host's power

    def active(self):
        return self.state in ("running", "leaving")

    def want(self, state):
        if PHASE[state] != PHASE[self.state]:
            self.revision, self.reached = self.revision + 1, None
        self.state = state


class Io(NamedTuple):
    """A transfer under way; volatile."""
    aim: str                                    # in, out, copy (reading), switch (writing)
    stamp: tuple
    slot: tuple                                 # read from or written to
    origin: tuple | None = None              # the page's entry when a copy began
    content: int | None = None


class Host(Actor):
    """A hypervisor: runs instances, pages them, moves them."""

    def __init__(self, name, homes, reach, capacity=9):
        super().__init__(name)
        self.homes, self.reach = homes, reach   # device -> home host; devices in reach
        self.capacity, self.tokens = capacity, 0                # instances that it has room for
        self.asked = {}                         # request -> its saga, later the verdict
        self.instances, self.slots, self.lent, self.regained = {}, {}, {}, {}
        self.lending, self.loans = {}, 0        # device -> its last loan, while it may be listed
        self.number, self.session, self.seen, self.reboots = 0, 1, {}, []
        self.ram, self.phase, self.told = {}, {}, {}            # the machines themselves, not the record
        self.io, self.count = {}, 0             # volatile

    # -- slots: a home slot is in exactly one of slots and lent
    def gain(self, slot, generation):
        if generation > self.slots.get(slot, 0):
            self.slots[slot] = generation
            self.lent.pop(slot, None)

    def lose(self, slot, generation):
        if self.slots.get(slot, 0) <= generation:
            self.slots.pop(slot, None)
            if self.homes[slot[0]] == self.name:
                self.lent[slot] = max(generation, self.lent.get(slot, 0))
                self.loans += 1                 # never starts again: an Unshared names its loan
                self.lending[slot[0]] = self.loans

    def idle(self):
        """Slots held that no table names, no transfer writes and no open saga names."""
        used = {slot for instance in self.instances.values() for slot in instance.table.values()}
        used |= {io.slot for io in self.io.values()}
        used |= self.named()
        return sorted(slot for slot in self.slots if slot not in used)

    def named(self):
        """Slots of sagas that are below row resume here as target, or forget as source."""
        slots = set()
        for progress in self.sagas.values():
            if not progress.undone and progress.row < RESUME:
                slots |= set(progress.facts.get("slots", ()))
            if not progress.undone and progress.row < FORGET:
                slots |= {(device, number) for device, numbers in progress.facts.get("grants", {}).items()
                          for number in numbers}
        return slots

    def free_slot(self):
        """Only home slots are ever written."""
        return next((slot for slot in self.idle() if self.homes[slot[0]] == self.name), None)

    def room(self):
        """Every record of an instance is a reservation, until its machine is gone."""
        return len(self.instances) < self.capacity

    # -- the machine follows the record
    @property
    def running(self):
        return {key for key, (phase, _) in self.phase.items() if phase == "running"}

    def obey(self):
        """Tell the machines what the record wants; they follow in their own time."""
        self.told = {key: (PHASE[instance.state], instance.revision, instance.manifest)
                     for key, instance in self.instances.items() if not instance.lost or instance.state == "gone"}
        self.told |= {key: ("gone", NEVER, None) for key in self.phase if key not in self.instances}
        for key in self.running & set(self.instances):          # a page in memory and in the table: never mapped
            table = self.instances[key].table
            self.ram[key] = {page: content for page, content in self.ram[key].items() if page not in table}

    def follow(self, key):
        """The machine does what it was told, if it can by now, and says where it is: a level."""
        wanted, revision, manifest = self.told[key]
        phase, at = self.phase.get(key, ("none", 0))
        if key not in self.instances:           # nobody knows it any more
            self.phase.pop(key, None), self.ram.pop(key, None), self.told.pop(key)
            return []
        if at < revision and self.can_become(key, phase, wanted, manifest):
            self.become(key, phase, wanted)
            phase, at = self.phase[key] = wanted, revision
        table = self.instances[key].table if phase == "frozen" else {}
        return [tell("Report", self.name, key=key, revision=at, phase=phase, slots=tuple(sorted(table.values())),
                     pages=len({*table, *self.ram.get(key, {})}))]

    def can_become(self, key, phase, wanted, manifest):
        if wanted == "loaded":
            table = self.instances[key].table
            whole = manifest == (len({*table, *self.ram.get(key, {})}), frozenset(table.values()))
            return phase == "filling" and whole
        if phase == "dead":                     # only a record that knows of it has it started again
            return wanted == "gone" or (wanted == "running" and self.instances[key].born > self.phase[key][1])
        return phase in {"filling": ("none",), "frozen": ("running", "frozen"), "gone": ("none", *PHASE.values()),
                         "running": ("none", "loaded", "frozen", "running")}[wanted]

    def become(self, key, phase, wanted):
        self.cancel(key)
        if phase in ("none", "dead") or wanted == "gone":
            self.ram[key] = {}
        if wanted == "running":                 # from here on what is resident wins
            table = self.instances[key].table
            for page in [page for page in self.ram[key] if page in table]:
                del table[page]

    def on_report(self, message, key, revision, phase, slots, pages):
        """The machine is there; of an older revision it does not matter."""
        instance = self.instances.get(key)
        if instance and phase == "dead" and revision >= instance.born:
            return self.mourn(key, instance)
        if not instance or (instance.lost and phase != "gone") or revision != instance.revision:
            return []
        instance.reached, instance.listed, instance.pages = phase, slots, pages
        says = self.woken(key)
        if phase == "gone" and instance.state == "gone":
            self.instances.pop(key, None)
        return says

    def mourn(self, key, instance):
        """The machine died by itself: a guest that runs boots anew, any other is lost to its saga."""
        if instance.active():
            self.reboot(key)
        elif instance.state != "gone":
            instance.lost = True
        return self.woken(key)

    def die(self, key):
        """QEMU or its pager ends for a reason of its own."""
        self.cancel(key)
        self.ram[key], self.phase[key] = {}, ("dead", self.phase[key][1])

    def power_off(self):
        """All memory is gone, and the machines."""
        self.ram, self.phase, self.told = {}, {}, {}

    def restart(self, memory_lost=False):
        self.io, self.count, self.session = {}, 0, self.session + 1
        if memory_lost:
            self.power_off()
            for key, instance in self.instances.items():
                if instance.active():
                    self.reboot(key)
                else:
                    instance.lost = True
        self.obey()

    def reboot(self, key):
        """An instance without its memory starts anew; its slots fall idle."""
        instance = self.instances[key]
        instance.table, instance.lost = {}, False
        instance.revision, instance.reached = instance.revision + 1, None
        instance.born = instance.revision
        self.cancel(key)
        self.reboots.append(instance.vm)

    # -- paging
    def cancel(self, key):
        self.io = {job: io for job, io in self.io.items() if job[0] != key}

    def transfer(self, kind, job, io):
        self.count += 1
        io = self.io[job] = io._replace(stamp=(self.session, self.count))
        device, number = io.slot
        body = {"content": io.content} if kind == "Write" else {}
        return [tell(kind, device, host=self.name, number=number, generation=self.slots[io.slot],
                     stamp=io.stamp, job=job, **body)]

    def page_out(self, key, page):
        instance = self.instances[key]
        slot = self.free_slot()
        if slot is None or (key, page) in self.io or key not in self.running or page in instance.table:
            return []
        return self.transfer("Write", (key, page), Io("out", (), slot, content=self.ram[key][page]))

    def page_in(self, key, page, aim="in"):
        """Fetch a page; a fault takes the place of a background copy."""
        slot = self.instances[key].table[page]
        if (key, page) in self.io and (aim == "copy" or self.io[key, page].aim == "in"):
            return []
        return self.transfer("Read", (key, page), Io(aim, (), slot, origin=slot))

    def clean_up(self, key, page):
        """Start to copy a page from a foreign slot to one of our own."""
        return self.page_in(key, page, "copy")

    def wanted(self, job, stamp):
        """The transfer that this answers, if it still matters; a guest that is not running is only read for."""
        io, (phase, _) = self.io.get(job), self.phase.get(job[0], ("none", 0))
        serves = phase == "running" or (io and phase in ("frozen", "loaded") and io.aim == "in")
        return io if io and io.stamp == stamp and serves and job[0] in self.instances else None

    def before(self, message):
        body = message.body
        if message.kind == "Pages" and self.may_fill(**body):
            self.ram[body["key"]].update(body["pages"])
            self.instances[body["key"]].table.update(body["entries"])
        if message.kind == "Data" and body["good"]:
            io = self.wanted(body["job"], body["stamp"])
            if io and io.aim == "in":
                key, page = body["job"]
                self.ram[key][page] = body["content"]

    def may_fill(self, key, token, pages, entries):
        """Only a machine that is filling takes pages, and only from who has its token."""
        instance, (phase, _) = self.instances.get(key), self.phase.get(key, ("none", 0))
        return instance and instance.state != "gone" and phase == "filling" and instance.token == token

    def on_pages(self, message, **body):
        return []

    def on_data(self, message, job, stamp, good, content):
        io, (key, page) = self.wanted(job, stamp), job
        if not io:
            return []
        del self.io[job]
        instance = self.instances[key]
        if good and io.aim == "in" and key in self.running:     # elsewhere the table never changes
            del instance.table[page]
        slot = self.free_slot()
        if good and io.aim == "copy" and slot:
            return self.transfer("Write", job, Io("switch", (), slot, io.origin, content))
        return []

    def on_wrote(self, message, job, stamp, good):
        io, (key, page) = self.wanted(job, stamp), job
        if not io:
            return []
        del self.io[job]
        if good and self.unchanged(key, page, io):
            self.instances[key].table[page] = io.slot
        return []

    def unchanged(self, key, page, io):
        """Is the page still what was written to the slot?"""
        table = self.instances[key].table
        if io.aim == "out":
            return page not in table and self.ram[key].get(page) == io.content
        return table.get(page) == io.origin

    # -- opening a migration
    def on_ask(self, message, request, key, target, devices):
        """The user wants a migration; asking twice is asking once."""
        if request not in self.asked:
            saga = self.asked[request] = self.open(request, key, target, devices) or "refused"
            if saga in self.sagas:
                return self.said(self.sagas[saga].facts["cast"], self.sagas[saga])
        return self.verdict(request)

    def on_cancel(self, message, request):
        """Want it undone; what was never asked is undone for ever. The verdict is the manager's."""
        saga = self.asked.setdefault(request, "undone")
        if saga in self.sagas:
            return [tell("Abort", MANAGER, self.sagas[saga].facts["cast"])]
        return self.verdict(request)

    def verdict(self, request):
        saga = self.asked[request]
        if saga in self.sagas:
            return []                           # still open; the saga's own timer asks on
        return [tell("Verdict", "user", request=request, verdict=saga)]

    def open(self, request, key, target, devices):
        """Row 0. `devices` and the room are what the source believes; welcome knows."""
        instance = self.instances.get(key)
        if not instance or (instance.state, instance.reached) != ("running", "running"):
            return None                         # a machine not yet reported may still owe row resume
        saga = (self.name, self.number)
        floor = min([number for opener, number in self.sagas if opener == self.name] + [self.number])
        self.number += 1
        instance.want("leaving")
        cast = Cast(saga, floor, instance.vm, instance.epoch, key, self.name, target, devices)
        self.sagas[saga] = Progress(0, False, {"cast": cast, "request": request})
        return saga

    # -- standing rules: returns, surveys
    def on_taken(self, message, device, slots):
        for number, generation in slots.items():
            if self.slots.get((device, number)) == generation:
                del self.slots[device, number]
        return []

    def on_surveyed(self, message, device, back):
        for number, generation in back.items():
            if generation > self.lent.get((device, number), generation):
                self.gain((device, number), generation)
                self.regained[device, number] = generation
        return []

    def on_recorded(self, message, device, slots):
        for number, generation in slots.items():
            if self.regained.get((device, number)) == generation:
                del self.regained[device, number]
        return []

    def on_unshared(self, message, device, loan):
        if self.lending.get(device) == loan:
            del self.lending[device]
        return []

    def on_boot(self, message, vm, epoch):
        """The manager placed a machine of a dead host here."""
        if self.seen.get(vm, 0) < epoch:
            self.seen[vm] = epoch
            self.instances["boot", vm, epoch] = Instance(vm, epoch, "running")
            self.reboot(("boot", vm, epoch))
        return [tell("Booted", MANAGER, vm=vm, epoch=epoch)]

    def tick(self):
        says = []
        for saga, progress in self.sagas.items():
            if saga[0] == self.name:
                cast = progress.facts["cast"]
                says += [tell("Register", MANAGER, cast)] + self.said(cast, progress)
        foreign = [slot for slot in self.idle() if self.homes[slot[0]] != self.name]
        says += [tell("Return", device, host=self.name, slots=slots)
                 for device, slots in by_device({slot: self.slots[slot] for slot in foreign})]
        says += [tell("Survey", device, asker=self.name) for device, _ in by_device(self.lent)]
        says += [tell("Regained", MANAGER, home=self.name, device=device, slots=slots)
                 for device, slots in by_device(self.regained)]
        away = {slot[0] for slot in [*self.lent, *self.regained]}
        says += [tell("Unshare", MANAGER, home=self.name, device=device, loan=loan)
                 for device, loan in self.lending.items() if device not in away]
        return says


def by_device(slots):
    """{(device, number): generation} as (device, {number: generation}) pairs."""
    result = {}
    for (device, number), generation in sorted(slots.items()):
        result.setdefault(device, {})[number] = generation
    return list(result.items())


@dataclass
class Placement:
    """The record that decides where a machine runs."""
    host: str
    epoch: int = 1
    lock: tuple | None = None                # the saga that may replace it
    booting: bool = False                       # its host was dead; the new one has not confirmed


@dataclass
class Entry:
    """A shared device: slots away from home, and sagas that may take more away."""
    slots: dict = field(default_factory=dict)   # number -> (host, generation)
    pending: set = field(default_factory=set)


class Manager(Actor):
    """Keeper of placements and of the sharing table; plays the pivot."""

    def __init__(self, placement, homes, hosts):
        super().__init__(MANAGER)
        self.placement, self.homes, self.hosts = placement, homes, hosts
        self.shared, self.dead, self.fenced = {}, set(), set()

    def assign(self, device, number, host, generation):
        """The highest generation wins; a slot at home is not listed."""
        slots = self.shared[device].slots if device in self.shared else {}
        if generation > slots.get(number, (None, 0))[1]:
            slots.pop(number, None)
            if host != self.homes[device]:
                slots[number] = (host, generation)

    def tidy(self, device):
        entry = self.shared.get(device)
        if entry and not entry.slots and not entry.pending:
            del self.shared[device]

    def on_abort(self, message):
        cast, progress = message.cast, self.progress(message.cast)
        if progress.row < PIVOT and not progress.undone:
            UNDO["manager"](self, cast, progress.facts)
            progress.undone = True
        return self.said(self.informed(cast), progress)

    def play(self, message):
        return super().play(message._replace(cast=self.informed(message.cast)))

    def informed(self, cast):
        return cast._replace(dead=frozenset(self.dead))

    def on_regained(self, message, home, device, slots):
        for number, generation in slots.items():
            self.assign(device, number, self.homes[device], generation)
        return [tell("Recorded", home, device=device, slots=slots)]

    def on_surveyed(self, message, device, back):
        """We surveyed for a home that is dead."""
        self.on_regained(message, None, device, back)
        return []

    def on_unshare(self, message, home, device, loan):
        """All slots are home, says the home; while a saga may take some away it has to ask again."""
        self.tidy(device)
        return [] if device in self.shared else [tell("Unshared", home, device=device, loan=loan)]

    # -- dead hosts: undo or finish their sagas, then fence, only then place their machines anew
    def on_dead(self, message, host):
        self.dead.add(host)
        for progress in self.sagas.values():
            if host in self.players(progress) and progress.row < PIVOT:
                UNDO["manager"](self, progress.facts["cast"], progress.facts)
                progress.undone = True
        return []

    def players(self, progress):
        cast = progress.facts.get("cast")
        return {cast.source, cast.target} if cast and progress.row < CLOSE else set()

    def on_fenced(self, message, device, host):
        self.fenced.add((device, host))
        return []

    def on_booted(self, message, vm, epoch):
        if self.placement[vm].epoch == epoch:
            self.placement[vm].booting = False
        return []

    def tick(self):
        says, heirs = [], [host for host in self.hosts if host not in self.dead]
        for progress in list(self.sagas.values()):
            if self.players(progress) & self.dead:
                says += self.said(self.informed(progress.facts["cast"]), progress)
        for host in sorted(self.dead):
            if any(host in self.players(progress) for progress in self.sagas.values()):
                continue
            unfenced = [device for device in self.homes if (device, host) not in self.fenced]
            says += [tell("Fence", device, host=host) for device in unfenced]
            for place in self.placement.values():
                if place.host == host and not unfenced:
                    place.host, place.epoch, place.booting = heirs[0], place.epoch + 1, True
        says += [tell("Boot", place.host, vm=vm, epoch=place.epoch)
                 for vm, place in self.placement.items() if place.booting]
        for device in [device for device in self.shared if self.homes[device] in self.dead]:
            says.append(tell("Survey", device, asker=MANAGER))
            self.tidy(device)
        return says
