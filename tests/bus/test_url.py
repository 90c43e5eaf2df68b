"""Which brokers we talk to, and that a password never shows."""

import pytest

from bus.errors import Unusable
from bus.url import check_url, without_password

SECRET = "hush-hush"


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://guest:{SECRET}@127.0.0.1:5672/",
        "amqp://localhost/",
        "amqp://[::1]/vhost",
        "amqp://127.9.9.9",
        f"amqps://node:{SECRET}@broker.example/prod?cafile=/etc/ca.pem",
        "amqps://127.0.0.1/?no_verify_ssl=1",
    ],
)
def test_loopback_or_tls_is_allowed(url):
    assert SECRET not in without_password(check_url(url))


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        (f"amqp://guest:{SECRET}@10.0.0.1/", "use amqps"),
        (f"amqp://guest:{SECRET}@broker.example/", "use amqps"),
        (f"amqp://127.0.0.1:{SECRET}@broker.example/", "use amqps"),
        ("amqp://localhost.example/", "use amqps"),
        ("amqp://0.0.0.0/", "use amqps"),
        (f"amqps://node:{SECRET}@broker.example/?no_verify_ssl=1", "no_verify_ssl"),
        (f"http://node:{SECRET}@127.0.0.1/", "starts with amqp"),
        (f"amqp://node:{SECRET}@/vhost", "host is missing"),
        (f"amqp://node:{SECRET}@127.0.0.1:99999/", "cannot be read"),
        (f"amqp://node:{SECRET}@127.0.0.1:port/", "cannot be read"),
        ("", "starts with amqp"),
    ],
)
def test_anything_else_is_refused_with_a_remedy_and_without_the_password(url, complaint):
    with pytest.raises(Unusable, match=complaint) as refused:
        check_url(url)

    assert SECRET not in str(refused.value)
