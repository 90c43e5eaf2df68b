"""Bodies by name and version."""

import attrs
import pytest

from actors.errors import Malformed
from actors.runtime.actor import Heard, Say
from actors.runtime.catalogue import Catalogue, correlation
from tests.actors.runtime.parts import CATALOGUE, Ask, Cast, Poke, Unstorable

CAST = Cast(saga="h1-7", vm="web1", epoch=3)


def envelope(say: Say):
    return CATALOGUE.encode(say, source="hypervisor.a", id="m2", causation="m1", sent_at=5.0)


def test_what_is_encoded_is_decoded_to_the_same():
    letter = envelope(Say(target="hypervisor.b", body=Poke(number=1), cast=CAST, row="grant"))

    assert CATALOGUE.decode(letter) == Heard(id="m2", source="hypervisor.a", body=Poke(number=1), cast=CAST)


def test_the_envelope_tells_type_saga_cause_and_time():
    letter = envelope(Say(target="hypervisor.b", body=Poke(number=1), cast=CAST, row="grant"))

    told = (letter.type, letter.type_v, letter.correlation, letter.epoch, letter.causation, letter.sent_at, letter.row)
    assert told == ("Poke", 1, "h1-7", 3, "m1", 5.0, "grant")


def test_outside_a_saga_a_request_holds_the_conversation_together():
    assert envelope(Say(target="user.u", body=Ask(request="r1"))).correlation == "r1"
    assert correlation(None, Poke(number=1)) is None


def test_another_version_of_a_type_is_malformed():
    @attrs.frozen
    class Poke:
        VERSION = 2
        number: int

    newer = Catalogue([Poke], Cast)

    with pytest.raises(Malformed, match="Poke: version 1 is unknown here, known is 2"):
        newer.decode(envelope(Say(target="hypervisor.b", body=globals()["Poke"](number=1))))


def test_a_body_that_is_in_no_catalogue_is_not_said():
    with pytest.raises(TypeError, match="Unstorable is not in the catalogue"):
        envelope(Say(target="hypervisor.b", body=Unstorable()))


def test_two_types_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two body types are named Poke"):
        Catalogue([Poke, Poke], Cast)
