//! The examples at the end of each command's `--help`. tests/runbook parses every one of them with the real parser, and sees
//! that none is wider than 80 columns.

pub const PLAN: &str = "Examples:
  rekey plan
  rekey plan --rehearse 20000     measure rate, WAL and lock time here
  rekey plan --output json | jq '.findings[].name'";

pub const INIT: &str = "Examples:
  rekey init
  rekey init --print-sql >rekey.sql   for an administrator to read and run";

pub const RUN: &str = "Examples:
  rekey run --dry-run             re-encrypt every row in memory; write nothing
  rekey run --deadline 2h         save and exit 9 after two hours
  rekey run --window \"01:00-05:00 Europe/Berlin\" --max-rate 5000
  rekey run --workers 4 --reason \"quarterly rotation\"
  rekey run --old-key dotenv:env/.env#ENCRYPTION_KEY --new-key file:new.key
  rekey run --compromised         the old key has leaked";

pub const STATUS: &str = "Examples:
  rekey status
  rekey status --watch
  rekey status --watch --listen 127.0.0.1:9090
  rekey status --output json | jq .totals";

pub const VERIFY: &str = "Examples:
  rekey verify
  rekey verify --workers 4 --output json | jq .clean";

pub const PROMOTE: &str = "Examples:
  rekey promote --yes
  rekey promote --target dotenv:env/.env.prod#ENCRYPTION_KEY --yes
  rekey promote --external --yes  print what to change, then rerun to confirm";

pub const FINALIZE: &str = "Examples:
  rekey finalize
  rekey finalize --yes --recovery-window 14";

pub const ROLLBACK: &str = "Examples:
  rekey rollback
  rekey rollback --yes --reason \"the application does not start\"";

pub const REPORT: &str = "Examples:
  rekey report >rotation.json
  rekey report --format html >rotation.html
  rekey report --format text
  rekey report --affected         who should reconnect after a compromise
  rekey report --affected --format csv >affected.csv";

pub const PAUSE: &str = "Examples:
  rekey pause --reason \"replica lags\"";

pub const RESUME: &str = "Examples:
  rekey resume
  rekey resume --deadline 1h";

pub const ABORT: &str = "Examples:
  rekey abort --reason \"window is over\"";

pub const QUARANTINE: &str = "Examples:
  rekey quarantine list
  rekey quarantine retry --also-key file:older.key
  rekey quarantine accept 01900000-0000-7000-8000-0000000000aa --reason \"lost\"";

pub const QUARANTINE_LIST: &str = "Examples:
  rekey quarantine list
  rekey quarantine list --output json | jq -r '.[].id'";

pub const QUARANTINE_RETRY: &str = "Examples:
  rekey quarantine retry
  rekey quarantine retry --also-key file:older.key";

pub const QUARANTINE_ACCEPT: &str = "Examples:
  rekey quarantine accept 01900000-0000-7000-8000-0000000000aa --reason \"lost\"";

pub const EXPLAIN: &str = "Examples:
  rekey explain 7
  rekey explain promoted
  rekey explain 'replication lag'
  rekey explain                   list every name";

pub const COMPLETIONS: &str = "Examples:
  rekey completions bash >/etc/bash_completion.d/rekey
  rekey completions fish >~/.config/fish/completions/rekey.fish
  source <(rekey completions zsh)";

pub const MAN: &str = "Examples:
  rekey man | man -l -
  rekey man --dir /usr/local/share/man/man1";

pub const KEYS: &str = "Examples:
  rekey keys status
  rekey keys generate encryption --to aws:dashtam/staging/encryption_key_new
  rekey keys backup aws:dashtam/production/encryption_key --out key.gpg";

pub const KEYS_GENERATE: &str = "Examples:
  rekey keys generate --env-file env/.env.dev
  rekey keys generate encryption --to aws:dashtam/staging/encryption_key_new
  rekey keys generate secret --stdout | gh secret set CI_SECRET_KEY";

pub const KEYS_VALIDATE: &str = "Examples:
  rekey keys validate
  rekey keys validate --env-file env/.env.test --environment testing
  rekey keys validate file:new.key --as encryption";

pub const KEYS_STATUS: &str = "Examples:
  rekey keys status
  rekey keys status --env-file env/.env.dev
  rekey keys status aws:dashtam/production/encryption_key";

pub const KEYS_FINGERPRINT: &str = "Examples:
  rekey keys fingerprint env:ENCRYPTION_KEY
  rekey keys fingerprint aws:dashtam/production#encryption_key@AWSPREVIOUS";

pub const KEYS_ROTATE_SECRET_KEY: &str = "Examples:
  rekey keys rotate-secret-key --yes
  rekey keys rotate-secret-key --env-file env/.env.prod
  rekey keys rotate-secret-key --rollback --yes";

pub const KEYS_BACKUP: &str = "Examples:
  rekey keys backup aws:dashtam/production/encryption_key --out key.gpg
  rekey keys backup env:SECRET_KEY env:ENCRYPTION_KEY --out keys.gpg
  rekey keys backup file:key --out key.gpg --passphrase-fd 3 3<passphrase";

pub const KEYS_RESTORE: &str = "Examples:
  rekey keys restore key.gpg --to aws:dashtam/production/encryption_key
  rekey keys restore keys.gpg --from env:SECRET_KEY --to file:secret.key --yes";

pub const KEYS_DESTROY: &str = "Examples:
  rekey keys destroy --fingerprint 0123456789abcdef
  rekey keys destroy --fingerprint 0123456789abcdef aws:dashtam/old/key --yes";

pub const CACHE: &str = "Examples:
  rekey cache purge --dry-run
  REDIS_URL=redis://redis.internal:6379/0 rekey cache purge --yes";

pub const CACHE_PURGE: &str = "Examples:
  REDIS_URL=redis://redis.internal:6379/0 rekey cache purge --dry-run
  rekey cache purge --prefix dashtam --yes";
