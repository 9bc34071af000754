//! Forms met in the wild, what is refused, and that nothing refused or printed contains a secret.

use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use sqlx::postgres::PgSslMode;

use super::{Dsn, DsnError, TargetSession};
use crate::error::{Error, Exit};

fn parse(text: &str) -> Result<Dsn, DsnError> {
    parse_with(text, &[])
}

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Dsn, DsnError> {
    Dsn::parse_in(text, &|name| {
        environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    })
}

fn password(text: &str) -> Option<String> {
    parse(text).unwrap().password.map(|password| password.to_string())
}

#[test]
fn forms_met_in_the_wild() {
    for (text, described) in [
        ("postgresql+asyncpg://user:pass@host:5432/dashtam", "user@host:5432/dashtam"),
        ("postgresql+psycopg://user:pass@host:5432/dashtam", "user@host:5432/dashtam"),
        ("postgresql+psycopg2://user:pass@host/dashtam", "user@host:5432/dashtam"),
        ("postgres://user:pass@host:6543/dashtam", "user@host:6543/dashtam"),
        ("postgresql://user@host/dashtam\n", "user@host:5432/dashtam"),
        ("POSTGRESQL://user@db.internal.example/dashtam", "user@db.internal.example:5432/dashtam"),
        ("postgresql+psycopg_async://user:pass@host/dashtam", "user@host:5432/dashtam"),
        ("postgresql+psycopg2cffi://user:pass@host/dashtam", "user@host:5432/dashtam"),
        ("postgresql+pg8000://user:pass@host/dashtam", "user@host:5432/dashtam"),
        (
            "postgresql://user@/dashtam?host=/run/postgresql/.s.PGSQL.6543",
            "user@/run/postgresql:6543/dashtam",
        ),
        ("postgresql://user@%2Frun%2F.s.PGSQL.6543/dashtam", "user@/run:6543/dashtam"),
        ("host=db user=user dbname=dashtam", "user@db:5432/dashtam"),
        (" host = 'db'  port=6543 user=user dbname='da sh' ", "user@db:6543/da sh"),
        ("host=/run/postgresql/.s.PGSQL.6543 user=user dbname=dashtam", "user@/run/postgresql:6543/dashtam"),
        (
            "host=db user=u\\ ser dbname=dashtam password=postgres://x sslmode=require",
            "u ser@db:5432/dashtam",
        ),
        ("postgresql://user:pass@[::1]:6543/dashtam", "user@[::1]:6543/dashtam"),
        ("postgresql://user@[fe80::1%eth0]/dashtam", "user@[fe80::1%eth0]:5432/dashtam"),
        ("postgresql://user@/dashtam?host=/run/postgresql", "user@/run/postgresql:5432/dashtam"),
        (
            "postgresql://user:pass@/dashtam?host=/run/postgresql&port=6543",
            "user@/run/postgresql:6543/dashtam",
        ),
        ("postgresql://user@%2Frun%2Fpostgresql/dashtam", "user@/run/postgresql:5432/dashtam"),
        ("postgresql://user@/dashtam?host=db:6543", "user@db:6543/dashtam"),
        ("postgresql://user@/dashtam?host=::1", "user@[::1]:5432/dashtam"),
        ("postgresql://user@/dashtam?host=fe80::1%25eth0&port=1", "user@[fe80::1%eth0]:1/dashtam"),
        ("postgresql://user@/dashtam?host=fe80::1%252561", "user@[fe80::1%2561]:5432/dashtam"),
        ("postgresql://?user=user&host=db&dbname=dashtam", "user@db:5432/dashtam"),
        ("postgresql://us%40er:pa%2Fss@my_db-1:/da%20sh", "us@er@my_db-1:5432/da sh"),
        ("postgresql://host:5432/dashtam?user=user&application_name=a@b", "user@host:5432/dashtam"),
        (
            "postgresql+asyncpg://user:pass@host/dashtam?ssl=require&prepared_statement_cache_size=0\
             &command_timeout=60&client_encoding=utf8&keepalives=1&gssencmode=disable&channel_binding=prefer",
            "user@host:5432/dashtam",
        ),
    ] {
        let dsn = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(dsn.describe(), described, "{text}");
    }
}

#[test]
fn passwords_are_decoded_and_may_be_as_loose_as_sqlalchemy_allows() {
    for (text, expected) in [
        ("postgresql://u:p%40ss%2Fw%3Ard%25@h/d", Some("p@ss/w:rd%")),
        ("postgresql://u:a+b%2Bc@h/d", Some("a+b+c")),
        ("postgresql://u:pa:ss@h/d", Some("pa:ss")),
        ("postgresql://u:pa/ss@h/d", Some("pa/ss")),
        ("postgresql://u:12/34@h/d", Some("12/34")),
        ("postgresql://u:pa?ss@h/d", Some("pa?ss")),
        ("postgresql://u:pa#ss@h/d", Some("pa#ss")),
        ("postgresql://u:%C3%BCber@h/d", Some("über")),
        ("postgresql://u:@h/d", None),
        ("postgresql://u@h/d", None),
        ("postgresql://u@h/d?password=p%26q", Some("p&q")),
        ("host=h dbname=d user=u password='it\\'s \\\\ %40'", Some("it's \\ %40")),
        ("host=h dbname=d user=u password=p\\'q", Some("p'q")),
        ("host=h dbname=d user=u password=a=b", Some("a=b")),
    ] {
        assert_eq!(password(text).as_deref(), expected, "{text}");
    }
}

#[test]
fn what_is_refused() {
    let value = |name, expected| DsnError::Value { name, expected };
    let modes = "disable, allow, prefer, require, verify-ca or verify-full";
    let unknown = |name: &str| DsnError::Unknown { name: Some(name.into()) };
    for (text, expected) in [
        ("", DsnError::NoScheme),
        ("a database", DsnError::NoScheme),
        ("host=db dbname='dashtam", DsnError::KeyValue),
        ("host=db dbname", DsnError::KeyValue),
        ("host=db user pass=x", DsnError::KeyValue),
        ("host=db", DsnError::NoDatabase),
        ("dbname=dashtam", DsnError::NoHost),
        ("host=db dbname=dashtam hostaddr=192.0.2.1", unknown("hostaddr")),
        ("host=db dbname=d password=pa ss=word", DsnError::Unknown { name: None }),
        ("mysql://u@h/d", DsnError::Scheme { scheme: Some("mysql".into()) }),
        ("postgresql+odbc://u@h/d", DsnError::Scheme { scheme: Some("postgresql".into()) }),
        ("secret://u@h/d", DsnError::Scheme { scheme: None }),
        ("postgresql://u:p@ss/word@h/d", DsnError::Host),
        ("postgresql://u:p@ss?word=1@h/d", DsnError::Unknown { name: None }),
        ("postgresql:///d", DsnError::NoHost),
        ("postgresql://u@h", DsnError::NoDatabase),
        ("postgresql://u@h/", DsnError::NoDatabase),
        ("postgresql://u@h:0/d", DsnError::Port),
        ("postgresql://u@h:+1/d", DsnError::Port),
        ("postgresql://u@h:65536/d", DsnError::Port),
        ("postgresql://u@[::1/d", DsnError::Host),
        ("postgresql://u@[::g]/d", DsnError::Host),
        ("postgresql://u:p@ss@h/d", DsnError::Host),
        ("postgresql://u@h h/d", DsnError::Host),
        ("postgresql://u@h%3Ai/d", DsnError::Host),
        ("postgresql://u@h%25i/d", DsnError::Host),
        ("postgresql://u@/d?host=h%25i", DsnError::Host),
        ("postgresql://u@a,b/d", DsnError::SeveralHosts),
        ("postgresql://u@a:1,b:2/d", DsnError::SeveralHosts),
        ("postgresql://u@/d?host=a:1&host=b:2", DsnError::Repeated { name: "host" }),
        ("postgresql://u:%ff@h/d", DsnError::Encoding { part: "password" }),
        ("postgresql://u@h/d%00", DsnError::Encoding { part: "database" }),
        ("postgresql://u@h/d?options=-csearch_path%3Dx", unknown("options")),
        ("postgresql://u@h/d?SSLMODE=require", DsnError::Unknown { name: None }),
        ("postgresql://u@h/d?sslmode=prefer&ssl=true", DsnError::Repeated { name: "sslmode" }),
        ("postgresql://u@h/d?sslmode=maybe", value("sslmode", modes)),
        ("postgresql://u@h/d?sslcert=c.pem", value("sslcert", "given together with sslkey")),
        ("postgresql://u@h/d?channel_binding=require", DsnError::Unsupported { name: "channel_binding" }),
        ("postgresql://u@h/d?host=other", DsnError::Conflict { name: "host" }),
        ("postgresql://u@h:1/d?port=2", DsnError::Conflict { name: "port" }),
        ("postgresql://u@h/d?dbname=e", DsnError::Conflict { name: "dbname" }),
        ("postgresql://u@h/d?connect_timeout=soon", value("connect_timeout", "a number of seconds")),
    ] {
        assert_eq!(parse(text).err(), Some(expected), "{text}");
    }
}

#[test]
fn no_error_and_no_debug_output_contains_a_secret() {
    const CANARY: &str = "xyzzy7";
    for text in [
        "xyzzy7",
        "xyzzy7@x://u:p@h/d",
        "XYZZY7 xyzzy7://h/d",
        "postgresql//u:xyzzy7@h/d",
        "mysql://u:xyzzy7@h/d",
        "postgresql://u:xyzzy7@h",
        "postgresql://u:xyzzy7@/d",
        "postgresql://u:xyzzy7@h:port/d",
        "postgresql://u:p@xyzzy7@h/d",
        "postgresql://u:p@xyzzy7@:h/d",
        "postgresql://u:xyzzy7/d",
        "postgresql://u:xyzzy7?d",
        "postgresql://u:p@h/d?pass=x@xyzzy7",
        "postgresql://u:12?a@xyzzy7/d",
        "postgresql://u:xyzzy7@[::g]/d",
        "postgresql://u:xyzzy7%ff@h/d",
        "postgresql://u:p@h/d?x&y@xyzzy7=1",
        "postgresql://u:p@h/d?sslmode=xyzzy7",
        "postgresql://u:p@h/d?ssl=xyzzy7",
        "postgresql://u:p@h/d?unknown=xyzzy7",
        "postgresql://u:p@h/d?password=xyzzy7",
        "postgresql://u@h/d?password=xyzzy7&password=xyzzy7",
        "postgresql://u@h/d?password=p&xyzzy7",
        "postgresql://u@h/d?options=xyzzy7",
        "postgresql://u@h/d?connect_timeout=xyzzy7",
        "postgresql://u@h/d?target_session_attrs=xyzzy7",
        "postgresql://u@h/d?port=xyzzy7",
        "postgresql://u:xyzzy7@h/d?channel_binding=require",
        "xyzzy7://u:p@h/d",
        "postgresql+xyzzy7://u:p@h/d",
        "postgresql://u:p@ss/xyzzy7@h/d",
        "postgresql://u:p@ss?xyzzy7=1@h/d",
        "postgresql://u@h/d?password=p&xyzzy7=1",
        "host=h dbname=d password='xyzzy7",
        "host=h dbname=d password=p xyzzy7",
        "host=h dbname=d password=p xyzzy7=1",
        "password=xyzzy7",
    ] {
        let error = parse(text).expect_err(text);
        let debug = format!("{error:?} {error}");
        let error = Error::from(error);
        assert_eq!(error.exit, Exit::Usage);
        let hint = error.hint.as_deref().expect("every refusal says what to do");
        let shown = format!("{debug} {} {hint} {error:?}", error.message);
        assert!(!shown.contains(CANARY), "{text}: {shown}");
    }
    let dsn = parse("postgresql://u:xyzzy7@h/d").unwrap();
    assert!(!format!("{dsn:?} {}", dsn.describe()).contains(CANARY));
}

#[test]
fn ssl_modes_mean_what_they_mean_to_libpq() {
    for (query, expected) in [
        ("", "Prefer"),
        ("sslmode=disable", "Disable"),
        ("sslmode=allow", "Prefer"),
        ("sslmode=require", "Require"),
        ("sslmode=require&sslrootcert=ca.pem", "VerifyCa"),
        ("sslmode=verify-ca&sslrootcert=ca.pem", "VerifyCa"),
        ("sslmode=verify-full", "VerifyFull"),
        ("sslrootcert=system", "VerifyFull"),
        ("ssl=true", "Require"),
        ("ssl=False", "Disable"),
        ("ssl=verify-full", "VerifyFull"),
        ("host=/run/postgresql&sslmode=require", "Disable"),
    ] {
        let host = if query.contains("host=") { "" } else { "h" };
        let dsn =
            parse(&format!("postgresql://u@{host}/d?{query}")).unwrap_or_else(|e| panic!("{query}: {e}"));
        assert_eq!(format!("{:?}", dsn.ssl_mode), expected, "{query}");
    }
}

#[test]
fn the_environment_fills_in_who_but_never_where() {
    let environment = [
        ("PGUSER", "pguser"),
        ("PGPASSWORD", "pgpass"),
        ("PGSSLMODE", "verify-full"),
        ("PGHOST", "elsewhere"),
    ];
    let dsn = parse_with("postgresql:///d?host=db", &environment).unwrap();
    assert_eq!(dsn.describe(), "pguser@db:5432/d");
    assert_eq!(dsn.password.as_ref().map(|p| p.as_str()), Some("pgpass"));
    assert!(matches!(dsn.ssl_mode, PgSslMode::VerifyFull));
    let dsn = parse_with("postgresql://u:p@db/d?sslmode=disable", &environment).unwrap();
    assert_eq!(dsn.describe(), "u@db:5432/d");
    assert_eq!(dsn.password.as_ref().map(|p| p.as_str()), Some("p"));
    assert!(matches!(dsn.ssl_mode, PgSslMode::Disable));
    assert_eq!(parse_with("postgresql:///d", &environment).err(), Some(DsnError::NoHost));
    assert!(matches!(
        parse_with("postgresql://u@h/d", &[("PGSSLMODE", "maybe")]),
        Err(DsnError::Value { name: "sslmode (from PGSSLMODE)", .. })
    ));
    let refused = parse_with("postgresql://u@h/d", &[("PGOPTIONS", "-c x=y")]);
    assert_eq!(refused.err(), Some(DsnError::PgOptions));
}

#[test]
fn sqlx_gets_what_the_url_says() {
    let dsn = parse("postgresql://u:p@h:6543/d?application_name=app&connect_timeout=5").unwrap();
    let options = dsn.connect_options();
    assert_eq!((options.get_host(), options.get_port()), ("h", 6543));
    assert_eq!((options.get_username(), options.get_database()), ("u", Some("d")));
    assert_eq!(options.get_application_name(), Some("app"));
    assert_eq!(dsn.connect_timeout(), Some(Duration::from_secs(5)));
    let options =
        parse("postgresql://u@/d?host=/run/postgresql&connect_timeout=0").unwrap().connect_options();
    assert_eq!(options.get_host(), "/run/postgresql");
    assert_eq!(options.get_application_name(), Some("rekey"));
}

#[test]
fn target_sessions_admit_the_servers_they_name() {
    for (word, primary, read_only_primary, standby) in [
        ("any", true, true, true),
        ("prefer-standby", true, true, true),
        ("read-write", true, false, false),
        ("read-only", false, true, true),
        ("primary", true, true, false),
        ("standby", false, false, true),
    ] {
        let session =
            parse(&format!("postgresql://u@h/d?target_session_attrs={word}")).unwrap().target_session();
        let admitted = [(false, false), (false, true), (true, true)].map(|(r, o)| session.admits(r, o));
        assert_eq!(admitted, [primary, read_only_primary, standby], "{word}");
    }
    assert_eq!(parse("postgresql://u@h/d").unwrap().target_session(), TargetSession::Any);
}

proptest! {
    /// Whatever stands in its parts, a URL whose parts are encoded yields them again, from either place.
    #[test]
    fn encoded_parts_come_back(
        [user, password, database] in prop::array::uniform3("[^\0]{1,12}"), host in "[a-z0-9][a-z0-9.-]{0,20}", port in 1u16..,
    ) {
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let [u, p, d] = [&user, &password, &database].map(|text| encoded(text));
        for url in [
            format!("postgresql+asyncpg://{u}:{p}@{host}:{port}/{d}"),
            format!("postgresql://?user={u}&password={p}&host={host}&port={port}&dbname={d}"),
            format!("postgresql://{u}@{host}/{d}?password={p}&port={port}"),
        ] {
            let dsn = parse(&url).unwrap_or_else(|e| panic!("{url}: {e}"));
            prop_assert_eq!((&dsn.user, &dsn.host, dsn.port, &dsn.database), (&user, &host, port, &database));
            prop_assert_eq!(dsn.password.as_ref().map(|p| p.as_str()), Some(password.as_str()));
        }
    }

    #[test]
    fn no_text_panics(text in "(postgres(ql)?://)?[\\PC]{0,40}") {
        let _ = parse(&text).map(|dsn| dsn.connect_options());
    }
}
