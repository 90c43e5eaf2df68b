"""Randomised checker: one seed is one deterministic history of faults, guests and migrations.

    python3 checker.py 1 20000          # seeds 1..50000 on all cores
"""
import random
import sys
from collections import Counter
from multiprocessing import Pool

from protocol import MANAGER, Actor, Device, Host, Instance, Manager, Placement, tell


class Violation(Exception):
    """An invariant does not hold."""


class Crash(Exception):
    """The actor stops between two micro-steps."""


class User(Actor):
    """Asks for migrations until there is a verdict."""

    def __init__(self):
        super().__init__("user")
        self.asks, self.verdicts = {}, {}

    def on_verdict(self, message, request, verdict):
        if verdict not in ("done", "undone", "refused") or self.verdicts.setdefault(request, verdict) != verdict:
            raise Violation(f"8 verdict of {request} is {verdict}, was {self.verdicts.get(request)}")
        return []

    def tick(self):
        return [ask for request, ask in self.asks.items() if request not in self.verdicts]


class World:
    """Actors, messages in flight, and what the guests really wrote."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        pick = self.random
        self.names = [f"h{index}" for index in range(pick.choice((2, 3, 3, 4)))]
        self.homes = {f"d{index}": name for index, name in enumerate(self.names)}
        if pick.random() < 0.5:
            self.homes["d9"] = pick.choice(self.names)
        far = 0.0 if pick.random() < 0.5 else 0.3
        reach = {name: tuple(sorted(device for device, home in self.homes.items()
                                    if home == name or pick.random() >= far)) for name in self.names}
        vms = [f"v{index}" for index in range(pick.choice((1, 2, 2)))]
        placement = {vm: Placement(pick.choice(self.names)) for vm in vms}
        guests = Counter(place.host for place in placement.values())
        self.hosts = {name: Host(name, self.homes, reach[name], max(guests[name], pick.choice((1, 2, 3, 9))))
                      for name in self.names}
        self.devices = {name: Device(name, home, pick.choice((2, 3, 5))) for name, home in self.homes.items()}
        self.manager = Manager(placement, self.homes, self.names)
        self.user, self.committed, self.saga_of = User(), set(), {}
        self.actors = {MANAGER: self.manager, "user": self.user, **self.hosts, **self.devices}
        for vm, place in placement.items():
            self.hosts[place.host].instances[vm, 0] = Instance(vm, 1, "running")
        for name, device in self.devices.items():
            self.hosts[device.home].slots.update({(name, number): 1 for number in device.slots})
        for actor in self.actors.values():
            actor.obey()
        for vm, place in placement.items():
            self.hosts[place.host].receive(*self.hosts[place.host].follow((vm, 0)))
        self.truth = {vm: {} for vm in vms}
        self.frozen, self.bag, self.late = {}, [], []
        self.down, self.gone, self.faults, self.value = {}, set(), True, 0
        self.crash_rate = pick.choice((0.0, 0.005, 0.02))       # at each micro-step of a delivery
        self.calm = pick.choice((1.0, 1.0, 0.3))                # migrations and aborts are rarer
        self.deadly = len(self.names) > 2 and pick.random() < 0.3
        self.cleaning = pick.random() < 0.8
        self.trace, self.counts = None, Counter()

    # -- delivery in micro-steps
    def send(self, messages):
        for message in messages:
            fate = self.random.random() if self.faults else 0.5
            if fate < 0.05:
                continue
            (self.late if fate > 0.93 else self.bag).append(message)
            if fate < 0.15:
                self.bag.append(message)

    def crash_point(self, name):
        if self.faults and self.random.random() < self.crash_rate:
            self.crash(name, self.random.random() < 0.2)
            raise Crash

    def crash(self, name, memory_lost):
        self.counts["crash"] += 1
        memory_lost &= name in self.hosts
        if memory_lost:
            self.hosts[name].power_off()
            self.counts["power"] += 1
        self.down[name] = memory_lost or self.down.get(name, False)

    def restart(self, name):
        self.actors[name].restart(self.down.pop(name))
        self.settle(name)

    def deliver(self, message):
        """before -> store -> obey -> say -> acknowledge, a crash wherever it likes."""
        name, actor = message.to, self.actors[message.to]
        if self.trace is not None:
            self.trace.append(message)
        try:
            self.crash_point(name)
            actor.before(message)
            self.crash_point(name)
            says = actor.receive(message)
            self.tally(message, says, actor)
            self.settle(name)
            self.crash_point(name)
            actor.obey()
            self.crash_point(name)
            self.send(says)
            self.crash_point(name)
        except Crash:
            self.bag.append(message)

    def tally(self, message, says, actor):
        """What the histories reach."""
        kind, said = message.kind, {say.kind for say in says}
        stale = kind == "Report" and message.body["key"] in actor.instances \
            and message.body["revision"] < actor.instances[message.body["key"]].revision
        self.counts["report_of_older_revision"] += stale
        self.counts["welcome_refused"] += kind == "Welcome" and "Abort" in said
        self.counts["saga_undone"] += kind == "Close" and "outcome" not in self.manager.progress(message.cast).facts
        self.counts["far_read"] += kind == "Data" and actor.phase.get(message.body["job"][0], ("",))[0] == "frozen"
        self.counts["cancel"] += kind == "Cancel"
        self.counts["granted"] += kind == "Grant" and "Granted" in said

    def settle(self, name):
        """Machines that booted anew have empty memory."""
        if name in self.hosts:
            for vm in self.hosts[name].reboots:
                self.truth[vm] = {}
                self.counts["reboot"] += 1
            self.hosts[name].reboots = []

    def tick(self, name):
        actor = self.actors[name]
        if name in self.hosts and self.random.random() < 0.3:
            actor.io = {}                       # transfers time out
        says = actor.tick()
        actor.obey()
        self.send(says)

    # -- what guests, operators and fate do
    def guest(self):
        host = self.hosts[self.random.choice(self.names)]
        if not host.running:
            return
        key, page = self.random.choice(sorted(host.running, key=repr)), self.random.randrange(4)
        instance, up, deed = host.instances.get(key), host.name not in self.down, self.random.random()
        if instance is None:
            return
        vm, memory = instance.vm, host.ram[key]
        if page in instance.table:
            if up and self.cleaning and deed < 0.5 and host.homes[instance.table[page][0]] != host.name:
                self.send(host.clean_up(key, page))
            elif up and deed < 0.85:
                self.send(host.page_in(key, page))
            elif up and deed > 0.95:            # the guest drops the page
                del instance.table[page]
                host.io.pop((key, page), None)
                self.truth[vm].pop(page, None)
        elif page in memory and deed < 0.5:
            if up:
                self.send(host.page_out(key, page))
        elif page in memory and deed < 0.6:
            if memory[page] != self.truth[vm].get(page):
                raise Violation(f"2 {vm} page {page}: {memory[page]} != {self.truth[vm].get(page)}")
        else:
            self.value += 1
            memory[page] = self.truth[vm][page] = self.value

    def machine(self):
        """A machine follows what it was told, also while its node is down; or a device state that is loaded or
        saved touches a page."""
        host = self.hosts[self.random.choice(self.names)]
        if not host.told:
            return
        key = self.random.choice(sorted(host.told, key=repr))
        table = host.instances[key].table if key in host.instances else {}
        if host.phase.get(key, ("none",))[0] in ("frozen", "loaded") and table and self.random.random() < 0.5:
            if host.name not in self.down:
                self.counts["staged_page_in"] += 1
                self.send(host.page_in(key, self.random.choice(sorted(table))))
        elif key in host.phase and host.phase[key][0] not in ("dead", "gone") and self.faults \
                and self.random.random() < self.crash_rate:
            self.counts["machine_died"] += 1
            host.die(key)
        else:
            self.send(host.follow(key))

    def migrate(self):
        host = self.hosts[self.random.choice(self.names)]
        target = self.hosts[self.random.choice(self.names)]
        if host.instances and host is not target:
            key = self.random.choice(sorted(host.instances, key=repr))
            believed = target.reach if self.random.random() < 0.9 else host.reach      # stale, perhaps
            shared = tuple(device for device in host.reach if device in believed)
            self.ask(host, key, target.name, shared)

    def ask(self, host, key, target, devices):
        self.counts["migrate"] += 1
        request = f"r{len(self.user.asks)}"
        ask = self.user.asks[request] = tell("Ask", host.name, request=request, key=key, target=target, devices=devices)
        self.send([ask])

    def abort(self):
        """The user cancels, perhaps what is not yet asked or long over."""
        if self.user.asks:
            request = self.random.choice(sorted(self.user.asks)[-3:])
            self.send([tell("Cancel", self.user.asks[request].to, request=request)])

    def kill(self):
        """A host is dead for ever; the operator switched it off and says so."""
        if not self.deadly or len(self.gone) >= len(self.names) - 2:
            return
        name = self.random.choice([name for name in self.names if name not in self.gone])
        self.hosts[name].power_off()
        self.down[name] = True
        self.gone.add(name)
        self.bag.append(tell("Dead", MANAGER, host=name))
        self.counts["dead"] += 1

    def step(self):
        deed = self.random.random()
        up = [name for name in self.actors if name not in self.down] or [self.restart_one()]
        if deed < 0.48 and self.bag:
            index = self.random.randrange(len(self.bag))
            if self.bag[index].to not in self.down:
                self.bag[index], self.bag[-1] = self.bag[-1], self.bag[index]
                self.deliver(self.bag.pop())
        elif deed < 0.58:
            self.guest()
        elif deed < 0.70:
            self.machine()
        elif deed < 0.82:
            self.tick(self.random.choice(up))
        elif deed < 0.895:
            if self.random.random() < self.calm:
                self.migrate()
        elif deed < 0.905:
            if self.random.random() < self.calm:
                self.abort()
        elif deed < 0.907:
            self.kill()
        elif deed < 0.915:
            if self.random.random() < self.crash_rate * 50:
                self.crash(self.random.choice(up), self.random.random() < 0.2)
        elif deed < 0.93 and self.late:
            self.bag.append(self.late.pop(self.random.randrange(len(self.late))))
        else:
            self.restart_one()
        if len(self.bag) > 60:                  # the bus loses what it cannot hold
            del self.bag[self.random.randrange(len(self.bag))]

    def restart_one(self):
        back = sorted(name for name in self.down if name not in self.gone)
        name = self.random.choice(back) if back else None
        if name:
            self.restart(name)
        return name

    # -- invariants
    def alive(self):
        return [host for name, host in self.hosts.items() if name not in self.gone]

    def check(self):
        """What holds after every step."""
        running = Counter(host.instances[key].vm for host in self.alive() for key in host.running
                          if key in host.instances)
        if running and max(running.values()) > 1:
            raise Violation(f"1 runs twice: {running}")
        for host in self.alive():
            for key, instance in host.instances.items():
                if key in host.running:
                    self.check_pages(host, key, instance)
                self.check_thaw(host, key, instance)
                if any(slot[0] not in host.reach for slot in instance.table.values()):
                    raise Violation(f"9 {instance.vm} on {host.name} names a slot out of reach")
            if sum(key[0] != "boot" and phase not in ("gone", "dead") for key, (phase, _) in host.phase.items()) > host.capacity:
                raise Violation(f"9 {host.name} is overbooked: {host.phase}")
        for name, device in self.devices.items():
            if name not in self.manager.shared and any(
                    slot.owner != device.home for slot in device.slots.values()):
                raise Violation(f"6 {name} is shared but not listed")
        self.check_verdicts()

    def check_verdicts(self):
        """A request opens one saga; its verdict is what the manager decided."""
        self.committed |= {saga for saga, progress in self.manager.sagas.items() if "outcome" in progress.facts}
        for host in self.hosts.values():
            for request, saga in host.asked.items():
                if isinstance(saga, tuple) and self.saga_of.setdefault(request, saga) != saga:
                    raise Violation(f"8 {request} opened {saga} and {self.saga_of[request]}")
        for request, verdict in self.user.verdicts.items():
            if (verdict == "done") != (self.saga_of.get(request) in self.committed):
                raise Violation(f"8 {request} is {verdict}")

    def check_pages(self, host, key, instance):
        for page, content in self.truth[instance.vm].items():
            if page in instance.table:
                slot = instance.table[page]
                record = self.devices[slot[0]].slots[slot[1]]
                good = (record.owner, record.generation) == (host.name, host.slots.get(slot))
                found = record.content if good else "refused"
            else:
                found = host.ram[key].get(page, "nothing")
            if found != content:
                raise Violation(f"2 {instance.vm} page {page} on {host.name}: {found} != {content}")

    def check_thaw(self, host, key, instance):
        """An aborted migration leaves the source as it was."""
        mark = (host.name, key)
        if self.down.get(host.name):
            return                              # no memory to compare
        if instance.state == "frozen" and mark not in self.frozen and key not in host.running:
            self.frozen[mark] = (dict(instance.table), self.resident(host, key, instance))
        elif instance.state == "gone":
            self.frozen.pop(mark, None)
        elif host.phase.get(key, ("dead",))[0] == "dead":
            self.frozen.pop(mark, None)         # no memory either
        elif instance.state != "frozen" and mark in self.frozen:
            table, memory = self.frozen.pop(mark)
            same = instance.table == table and self.resident(host, key, instance) == memory
            if not same and self.truth[instance.vm]:
                raise Violation(f"7 {instance.vm} on {host.name} is not as before")

    def resident(self, host, key, instance):
        """Memory without the copies that a frozen machine was served."""
        return {page: content for page, content in host.ram.get(key, {}).items() if page not in instance.table}

    def quiesce(self):
        """No more faults: everything must come to rest."""
        self.faults = False
        for name in [name for name in self.down if name not in self.gone]:
            self.restart(name)
        self.bag += self.late + [tell("Dead", MANAGER, host=name) for name in sorted(self.gone)]
        for _ in range(80):
            self.bag = [message for message in self.bag if message.to not in self.gone]
            if not self.bag and not self.work():
                return self.check_rest()
            self.random.shuffle(self.bag)
            while self.bag:
                message = self.bag.pop()
                if message.to not in self.gone:
                    self.deliver(message)
                    self.check()
        raise Violation(f"5 no rest: {[m.kind for m in self.bag][:9]} {self.open_sagas()}")

    def work(self):
        """Let every timer fire once; is there still something to do?"""
        for host in self.alive():
            host.io = {}
            if self.cleaning:
                for key, instance in host.instances.items():
                    for page, slot in instance.table.items():
                        if self.homes[slot[0]] != host.name and host.free_slot() and key in host.running:
                            self.send(host.clean_up(key, page))
            for key in list(host.told):
                self.send(report for report in host.follow(key) if self.news(host, key, report))
        for name, actor in self.actors.items():
            if name not in self.gone:
                self.send(message for message in actor.tick() if message.to not in self.gone)
        self.bag = [m for m in self.bag if m.kind != "Survey" or self.overdue(m)]
        return bool(self.bag) or any(place.booting for place in self.manager.placement.values())

    def news(self, host, key, report):
        """A report that is known is no work."""
        instance = host.instances.get(key)
        if instance and report.body["phase"] == "dead":
            return report.body["revision"] >= instance.born and not instance.lost and instance.state != "gone"
        return instance and instance.revision == report.body["revision"] and instance.reached != report.body["phase"]

    def overdue(self, survey):
        """A survey that finds nothing new is no work."""
        device = self.devices[survey.to]
        asker = self.actors[survey.body["asker"]]
        known = asker.lent if asker.name in self.hosts else {
            (entry, number): generation for entry, shared in self.manager.shared.items()
            for number, (_, generation) in shared.slots.items()}
        return any(slot.returned and slot.owner == device.home and slot.generation > known.get((device.name, number), 1 << 30)
                   for number, slot in device.slots.items())

    def open_sagas(self):
        return [saga for host in self.alive() for saga in host.sagas if saga[0] == host.name]

    def check_rest(self):
        """What holds at rest."""
        if self.open_sagas():
            raise Violation(f"5 open sagas: {self.open_sagas()}")
        for vm, place in self.manager.placement.items():
            runs = [(host.name, host.instances[key].epoch) for host in self.alive()
                    for key in host.running if host.instances[key].vm == vm]
            if runs != [(place.host, place.epoch)] or place.lock:
                raise Violation(f"5 {vm} runs {runs}, placed {place}")
        for host in self.alive():
            for key, instance in host.instances.items():
                if not instance.active() or key not in host.running:
                    raise Violation(f"5 {host.name} keeps {key}: {instance}")
        for request, ask in self.user.asks.items():
            if ask.to not in self.gone and request not in self.user.verdicts:
                raise Violation(f"8 {request} has no verdict")
        named = Counter(slot for host in self.alive() for instance in host.instances.values()
                        for slot in instance.table.values())
        if named and max(named.values()) > 1:
            raise Violation(f"4 named twice: {named}")
        truth = {}
        for name, device in self.devices.items():
            for number, slot in device.slots.items():
                self.check_slot((name, number), slot, device.home, named)
                if slot.owner != device.home:
                    truth.setdefault(name, {})[number] = (slot.owner, slot.generation)
        listed = {name: entry.slots for name, entry in self.manager.shared.items()}
        owners = {name: {number: host for number, (host, _) in slots.items()} for name, slots in listed.items()}
        if owners != {name: {number: host for number, (host, _) in slots.items()} for name, slots in truth.items()}:
            raise Violation(f"6 listed {listed}, truth {truth}")

    def check_slot(self, slot, record, home, named):
        if record.owner in self.gone:
            if record.owner != home:
                raise Violation(f"4 {slot} belongs to dead {record.owner}")
            return
        if self.hosts[record.owner].slots.get(slot) != record.generation:
            raise Violation(f"4 {slot} leaked: {record} unknown to {record.owner}")
        if record.owner != home and slot not in named:
            raise Violation(f"4 {slot} of {home} kept idle by {record.owner}")


def history(seed, steps=300):
    """Run one seed; return (violation or None, counts)."""
    world = World(seed)
    try:
        for _ in range(world.random.choice((steps // 3, steps, steps * 2))):
            world.step()
            world.check()
        world.quiesce()
    except Violation as violation:
        return str(violation), world.counts
    except Exception as error:                  # the protocol stumbled
        return f"0 {type(error).__name__}: {error}", world.counts
    world.counts["commits"] += sum(place.epoch - 1 for place in world.manager.placement.values())
    return None, world.counts


def run(seed):
    return seed, *history(seed)


def main(first, last):
    total, bad = Counter(), []
    with Pool(2) as pool:
        for seed, violation, counts in pool.imap_unordered(run, range(first, last + 1), 50):
            total += counts
            if violation:
                bad.append((seed, violation))
                print(seed, violation, flush=True)
                if len(bad) >= 20:
                    pool.terminate()
                    break
    print(f"{last - first + 1} seeds, {len(bad)} violations, {dict(total)}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
