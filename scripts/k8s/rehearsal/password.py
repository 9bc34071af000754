"""The database's password: none is needed, or it changes again and again while pods run."""

import secrets
import threading

from mounted import Mounted


class Fixed:
    components, mounted, role, changes = (), {}, "postgres", 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def stop(self):
        pass


class Rotating:
    """In a mounted Secret, as the component password-from-file has it. Each change ends every session that it had opened,
    as Vault does with a lease that is revoked."""

    components, role = ("password-from-file",), "rotating"

    def __init__(self, database, group, seconds):
        self.database, self.seconds, self.changes, self.over = database, seconds, 0, threading.Event()
        database.ask_for_passwords_of(self.role)
        self.secret = Mounted(group, password="")
        self.mounted = {"rekey-database-password": self.secret}
        self.change()

    def change(self):
        password = secrets.token_hex(16)
        # In this order: for a moment the mounted one is ahead of the server's.
        self.secret.change(password=password)
        self.database.change_password(self.role, password)

    def again(self):
        while not self.over.wait(self.seconds):
            self.change()
            self.changes += 1

    def __enter__(self):
        self.thread = threading.Thread(target=self.again, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def stop(self):
        self.over.set()
        self.secret.clean()
