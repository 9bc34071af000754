"""The key management guide's rotation script (docs/key-management.md, 3.4 step 2), without the application around it.

The same algorithm: load every connection with its credentials at once, then for each one decrypt, encrypt, save the
entity in a transaction of its own, and print. What SQLAlchemy and asyncio would add on top is left out, so the real one
is slower. Runs in an environment that has psycopg and cryptography; keys and DATABASE_URL come from the environment.
"""

import os

import psycopg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.rows import dict_row

FIND_ALL = "SELECT * FROM provider_connections WHERE encrypted_credentials IS NOT NULL"
# The repository saves whole entities: it loads the row it is about to change.
FIND = "SELECT * FROM provider_connections WHERE id = %s"
SAVE = "UPDATE provider_connections SET encrypted_credentials = %b, updated_at = now() WHERE id = %s"


def main():
    old = AESGCM(os.environ["ENCRYPTION_KEY"].encode())
    new = AESGCM(os.environ["NEW_ENCRYPTION_KEY"].encode())
    with psycopg.connect(os.environ["DATABASE_URL"], row_factory=dict_row) as session:
        connections = session.execute(FIND_ALL, binary=True).fetchall()
        session.commit()
        for connection in connections:
            stored = connection["encrypted_credentials"]
            try:
                plaintext = old.decrypt(stored[:12], stored[12:], None)
            except InvalidTag as error:
                print(f"Failed to decrypt connection {connection['id']}: {error!r}")
                continue
            nonce = os.urandom(12)
            session.execute(FIND, (connection["id"],), binary=True).fetchone()
            session.execute(SAVE, (nonce + new.encrypt(nonce, plaintext, None), connection["id"]))
            session.commit()
            print(f"Re-encrypted connection {connection['id']}")


if __name__ == "__main__":
    main()
