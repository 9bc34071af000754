//! Database URLs: what parses can be written down again and means the same, and a password shows nowhere, neither
//! where the URL is refused nor where it is described.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rekey::error::{Error, Exit};
use rekey::store::{Dsn, DsnError};

/// Upper case, so that it never looks like the name of a parameter, which errors do show.
const CANARY: &str = "XYZZY7";

/// `data`: a URL; and, on both sides of the canary, the password of another one.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Dsn::parse(text) {
        Ok(dsn) => means_the_same_again(&dsn),
        Err(error) => refused(error, &[]),
    }
    // What has an @ of its own ends where nobody can say.
    if !text.contains('@') {
        hides_its_password(text);
    }
}

fn means_the_same_again(dsn: &Dsn) {
    let options = dsn.connect_options();
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (user, host) = (encoded(options.get_username()), encoded(options.get_host()));
    let database = encoded(options.get_database().expect("a database"));
    let again =
        format!("postgresql://?user={user}&host={host}&port={}&dbname={database}", options.get_port());
    // An address in this form needs no brackets, and a port behind a name is a port.
    let Ok(again) = Dsn::parse(&again) else { panic!("{} is refused as {again}", dsn.describe()) };
    assert_eq!(again.describe(), dsn.describe());
    assert_eq!(format!("{dsn:?}"), format!("Dsn({})", dsn.describe()));
}

fn hides_its_password(around: &str) {
    let middle = (0..=around.len() / 2).rev().find(|&at| around.is_char_boundary(at)).unwrap_or(0);
    let (before, behind) = around.split_at(middle);
    let password = format!("{before}{CANARY}{behind}");
    let url = format!("postgresql://user:{}@host/database", encoded(&password));
    if !password.contains('\0') {
        let dsn = Dsn::parse(&url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(dsn.describe(), "user@host:5432/database");
        assert!(!format!("{dsn:?}").contains(CANARY));
        let options = format!("{:?}", dsn.connect_options());
        assert!(options.contains(&format!("{:?}", password)), "the password is another one");
    }
    // As it stands, which people do as well.
    match Dsn::parse(&format!("postgresql://user:{password}@host/database")) {
        Ok(dsn) => {
            // `user:/XYZZY7?application_name=@host/database` is a URL with another meaning.
            let ambiguous = password.contains('/') && password.contains('?');
            assert!(ambiguous || !format!("{dsn:?} {}", dsn.describe()).contains(CANARY));
        }
        Err(error) => refused(error, &[CANARY]),
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn refused(error: DsnError, secrets: &[&str]) {
    let debug = format!("{error:?} {error}");
    let error = Error::from(error);
    assert_eq!(error.exit, Exit::Usage);
    assert!(error.hint.is_some(), "every refusal says what to do");
    let shown = format!("{debug} {error:?}");
    for secret in secrets {
        assert!(!shown.contains(secret), "a password is shown: {shown}");
    }
}
