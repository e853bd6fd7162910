#!/usr/bin/env python3
"""Prints every change of an alarm that a binding selects, one line each.

Needs pika (Debian: python3-pika). Usage:

    subscriber.py --password-file PREFIX/etc/secrets/amqp [--key 'nagios.#'] [--queue NAME]

Without --queue the queue is the subscriber's own and goes with it. With --queue it is durable: what happens while the
subscriber is away waits in it, and a message counts as handled once it was acknowledged.
"""

import argparse
import json
import time

import pika
import pika.exceptions

STATES = ["ok", "minor", "major", "critical"]


def show(channel, method, _properties, body):
    notice = json.loads(body)
    alarm = notice["alarm"]
    value = alarm["v"]
    print(
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(notice["timestamp"])),
        notice["change"],
        notice["entity_id"],
        f"{STATES[notice['previous_state']]} -> {STATES[value['state']['val']]}",
        f"alarm {value['display_name']}",
        value["output"],
        flush=True,
    )
    # Only now: a subscriber that ends before this gets the message again.
    channel.basic_ack(method.delivery_tag)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5672)
    parser.add_argument("--vhost", default="canopsis")
    parser.add_argument("--user", default="overstory")
    parser.add_argument("--password-file", required=True)
    parser.add_argument("--key", default="#", help="binding: connector.connector_name.change.source_type.component[.resource]")
    parser.add_argument("--queue", default="", help="a durable queue of this name")
    parser.add_argument("--count", type=int, default=0, help="end after so many changes")
    options = parser.parse_args()

    with open(options.password_file, encoding="utf-8") as file:
        credentials = pika.PlainCredentials(options.user, file.read().strip())
    parameters = pika.ConnectionParameters(options.host, options.port, options.vhost, credentials, heartbeat=30)
    try:
        connection = pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPError, OSError) as error:
        raise SystemExit(
            f"subscriber.py: no connection to the broker at {options.host}:{options.port} ({error!r}); "
            "its port is in etc/amqp.conf of the prefix: --port"
        ) from None
    channel = connection.channel()
    durable = bool(options.queue)
    arguments = {"x-queue-type": "quorum"} if durable else {}
    queue = channel.queue_declare(
        options.queue, durable=durable, exclusive=not durable, auto_delete=not durable, arguments=arguments
    ).method.queue
    channel.queue_bind(queue, "canopsis.alerts", options.key)
    channel.basic_qos(prefetch_count=100)
    seen = 0
    for method, properties, body in channel.consume(queue):
        show(channel, method, properties, body)
        seen += 1
        if seen == options.count:
            break
    connection.close()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
