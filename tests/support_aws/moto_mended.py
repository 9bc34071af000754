"""Starts moto's Secrets Manager with five of its faults mended on a free port of 127.0.0.1, or of the address that is
its argument, and prints the port.

AWS documents: a staging label is on one version; moving it names the version that it is removed from, and fails
if that one does not hold it; without a stage AWSCURRENT is read; a call happens or does not. moto 5.2 instead
  1. remembers the current version apart from the labels, so that a put after a stage move leaves two versions
     on AWSCURRENT;
  2. sets the old version's labels to AWSPREVIOUS alone on a put, wiping pins;
  3. reads the version of its own memory (see 1) when no stage is named;
  4. attaches a label a second time where it should refuse;
  5. runs calls in threads without a lock, so that one sees another half done.
Each fault is provoked on the unmended backend before it is mended, and again after. A fault that moto no longer
has, or that this does not mend, ends the process with a message: then remove, or repair, what is below.
"""

import functools
import sys
import threading

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.secretsmanager import models
from moto.secretsmanager.exceptions import InvalidParameterException
from werkzeug.serving import WSGIRequestHandler, make_server

Backend, Secret = models.SecretsManagerBackend, models.FakeSecret


def put(backend, value, stages=("AWSCURRENT",)):
    import json
    import uuid

    return json.loads(backend.put_secret_value("s", value, None, str(uuid.uuid4()), list(stages)))["VersionId"]


def fresh():
    backend = Backend("us-east-1", "123456789012")
    backend.create_secret("s", "one", None, None, None, None, None, [], False)
    secret = backend.secrets["s"]
    return backend, secret, next(iter(secret.versions))


def holders(secret, label):
    return [v for v, held in secret.versions.items() if label in held["version_stages"]]


def two_versions_current():
    backend, secret, one = fresh()
    two = put(backend, "two", ["private"])
    backend.update_secret_version_stage("s", "AWSCURRENT", one, two)
    put(backend, "three")
    return len(holders(secret, "AWSCURRENT")) != 1


def put_wipes_labels():
    backend, secret, one = fresh()
    backend.update_secret_version_stage("s", "pin", None, one)
    put(backend, "two")
    return holders(secret, "pin") != [one]


def stale_without_stage():
    backend, _, one = fresh()
    two = put(backend, "two", ["private"])
    backend.update_secret_version_stage("s", "AWSCURRENT", one, two)
    return backend.get_secret_value("s", None, None)["SecretString"] != "two"


def label_twice():
    backend, secret, one = fresh()
    two = put(backend, "two", ["private"])
    backend.update_secret_version_stage("s", "pin", None, one)
    try:
        backend.update_secret_version_stage("s", "pin", None, two)
    except InvalidParameterException:
        pass
    return len(holders(secret, "pin")) != 1


# Seconds that a reader has while a call is half done. It needs them where nothing holds it up, however busy the machine
# is; once it is held up there is nothing to wait for.
patience = 10


def seen_half_done():
    backend, secret, one = fresh()
    two = put(backend, "two", ["private"])
    seen = []

    class Slow(list):
        def remove(self, label):
            super().remove(label)
            read = lambda: seen.append(backend.describe_secret("s") and holders(secret, "AWSCURRENT"))
            reader = threading.Thread(target=read)
            reader.start()
            reader.join(patience)

    secret.versions[one]["version_stages"] = Slow(["AWSCURRENT"])
    backend.update_secret_version_stage("s", "AWSCURRENT", one, two)
    return seen == [[]]


FAULTS = [two_versions_current, put_wipes_labels, stale_without_stage, label_twice, seen_half_done]


def mend():
    global patience
    patience = 0.3

    def reset_default_version(self, secret_version, version_id):
        former = (holders(self, "AWSCURRENT") or [None])[0]
        self.versions[version_id] = secret_version
        if former and former != version_id:
            self.remove_version_stages_from_old_versions(["AWSPREVIOUS"])
            self.versions[former]["version_stages"].remove("AWSCURRENT")
            self.versions[former]["version_stages"].append("AWSPREVIOUS")
        self.default_version_id = version_id

    Secret.reset_default_version = reset_default_version

    move = Backend.update_secret_version_stage

    def update_secret_version_stage(self, secret_id, version_stage, remove_from_version_id, move_to_version_id):
        secret = self.secrets.get(secret_id)
        on = holders(secret, version_stage) if secret else []
        if move_to_version_id and move_to_version_id in on and remove_from_version_id in (None, move_to_version_id):
            return secret.arn, secret.name
        if move_to_version_id and on and remove_from_version_id not in on:
            raise InvalidParameterException(f"The staging label {version_stage} is attached to version {on[0]}")
        if move_to_version_id and secret and move_to_version_id not in secret.versions:
            raise InvalidParameterException(f"Not a valid version: {move_to_version_id}")
        answer = move(self, secret_id, version_stage, remove_from_version_id, move_to_version_id)
        if version_stage == "AWSCURRENT" and move_to_version_id:
            secret.default_version_id = move_to_version_id
        return answer

    Backend.update_secret_version_stage = update_secret_version_stage

    get = Backend.get_secret_value

    def get_secret_value(self, secret_id, version_id, version_stage):
        return get(self, secret_id, version_id, version_stage or (None if version_id else "AWSCURRENT"))

    Backend.get_secret_value = get_secret_value

    lock = threading.RLock()
    for name in [n for n, f in vars(Backend).items() if callable(f) and not n.startswith("_")]:

        def locked(call):
            @functools.wraps(call)
            def inner(*args, **kwargs):
                with lock:
                    return call(*args, **kwargs)

            return inner

        setattr(Backend, name, locked(getattr(Backend, name)))


class Quiet(WSGIRequestHandler):
    def log_request(self, *args, **kwargs):
        pass


def main():
    healed = [fault.__name__ for fault in FAULTS if not fault()]
    if healed:
        sys.exit(f"moto no longer has: {', '.join(healed)}. Remove what mends it from {__file__}.")
    mend()
    left = [fault.__name__ for fault in FAULTS if fault()]
    if left:
        sys.exit(f"still in moto after mending: {', '.join(left)}. Repair {__file__}.")
    dispatcher, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

    def app(environ, start_response):
        # Answers are built from the live objects, outside the backend's calls.
        with one_at_a_time:
            return list(dispatcher(environ, start_response))

    server = make_server(*(sys.argv[1:2] or ["127.0.0.1"]), 0, app, threaded=True, request_handler=Quiet)
    print(server.server_port, flush=True)
    # The parent's end of the pipe closes when it ends, however it ends.
    threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    server.serve_forever()


if __name__ == "__main__":
    main()
