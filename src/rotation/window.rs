//! `--window 01:00-05:00 Europe/Berlin`: the hours of each day in which work may be done, in a zone with its DST.
//!
//! An opening is the span from a day's start time to the end time that follows it, both as that zone's clocks show
//! them: a time that clocks skip counts as the moment they skip to, one they show twice as the first of both.

use std::fmt;

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A daily time window.
#[derive(Clone, Debug)]
pub struct Window {
    start: Time,
    end: Time,
    zone: TimeZone,
    text: String,
}

impl Window {
    /// Reads `HH:MM-HH:MM [ZONE]`; the zone is an IANA name, UTC if none is given. The end may be past midnight.
    pub fn parse(text: &str) -> Result<Window, String> {
        let form = "write a window like 01:00-05:00 Europe/Berlin; the default zone is UTC";
        let (hours, zone) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), "UTC"));
        let (start, end) = hours.split_once('-').ok_or(form)?;
        let (start, end) = (time(start).ok_or(form)?, time(end).ok_or(form)?);
        if start == end {
            return Err("the window starts when it ends; leave it out to work at any hour".into());
        }
        let name = zone.trim();
        let zone = TimeZone::get(name)
            .map_err(|_| format!("unknown time zone {name}; write an IANA name like Europe/Berlin"))?;
        Ok(Window { start, end, zone, text: format!("{hours} {name}") })
    }

    /// Whether work may be done at this moment.
    pub fn is_open(&self, at: Timestamp) -> bool {
        self.openings(at).any(|(from, to)| from <= at && at < to)
    }

    /// When it opens next, if it is closed.
    pub fn opens_at(&self, at: Timestamp) -> Option<Timestamp> {
        self.openings(at).filter(|(from, to)| from < to && at < *from).map(|(from, _)| from).min()
    }

    /// The openings of the days around a moment. An empty one is a day whose hours the clocks skip.
    fn openings(&self, at: Timestamp) -> impl Iterator<Item = (Timestamp, Timestamp)> {
        let today = self.zone.to_datetime(at).date();
        (-1i64..=3).filter_map(move |days| {
            let day = today.checked_add(days.days()).ok()?;
            let last = if self.end > self.start { day } else { day.tomorrow().ok()? };
            Some((self.moment(day, self.start)?, self.moment(last, self.end)?))
        })
    }

    fn moment(&self, day: Date, time: Time) -> Option<Timestamp> {
        self.zone.to_timestamp(day.to_datetime(time)).ok()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `HH:MM`; 24:00 is midnight.
fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str| {
        (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse::<i8>().ok())?
    };
    match (number(hour)?, number(minute)?) {
        (24, 0) => Some(Time::midnight()),
        (hour, minute) => Time::new(hour, minute, 0, 0).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(window: &str, at: &str) -> bool {
        Window::parse(window).unwrap().is_open(at.parse().unwrap())
    }

    #[test]
    fn it_is_open_from_its_start_until_before_its_end() {
        let at = |time: &str| open("01:00-05:00", &format!("2026-11-25T{time}Z"));
        let got = ["00:59:59", "01:00:00", "04:59:59", "05:00:00"].map(at);
        assert_eq!(got, [false, true, true, false]);
    }

    #[test]
    fn at_its_start_the_next_opening_is_tomorrow() {
        let opens = Window::parse("01:00-05:00").unwrap().opens_at("2026-11-25T01:00:00Z".parse().unwrap());
        assert_eq!(opens.unwrap().to_string(), "2026-11-26T01:00:00Z");
    }

    #[test]
    fn it_may_cross_midnight() {
        let at = |time: &str| open("22:30-02:00 UTC", &format!("2026-11-25T{time}Z"));
        assert_eq!(
            ["22:29:00", "22:30:00", "00:00:00", "01:59:00", "02:00:00"].map(at),
            [false, true, true, true, false]
        );
        assert!(open("22:00-24:00", "2026-11-25T23:59:00Z"));
        assert!(!open("22:00-24:00", "2026-11-25T00:00:00Z"));
    }

    #[test]
    fn it_follows_the_zone_through_summer_and_winter() {
        let berlin = "01:00-05:00 Europe/Berlin";
        assert!(open(berlin, "2026-07-01T23:00:00Z"), "1:00 in summer");
        assert!(!open(berlin, "2026-12-01T23:00:00Z"), "midnight in winter");
        assert!(open(berlin, "2026-12-01T00:00:00Z"), "1:00 in winter");
    }

    #[test]
    fn hours_that_clocks_skip_or_show_twice() {
        // Berlin, 2026-03-29: 2:00 is 3:00, at 1:00 UTC. 2026-10-25: 3:00 is 2:00 again, at 1:00 UTC.
        assert!(!open("02:00-03:00 Europe/Berlin", "2026-03-29T01:00:00Z"));
        assert!(open("02:30-04:00 Europe/Berlin", "2026-03-29T01:30:00Z"));
        let skipped = Window::parse("02:00-03:00 Europe/Berlin").unwrap();
        let next = skipped.opens_at("2026-03-29T00:30:00Z".parse().unwrap()).unwrap();
        assert_eq!(next.to_string(), "2026-03-30T00:00:00Z");
        // Once, not twice: the first 2:00 to the first 2:45.
        let twice = "02:00-02:45 Europe/Berlin";
        assert!(open(twice, "2026-10-25T00:30:00Z"));
        assert!(!open(twice, "2026-10-25T01:30:00Z"));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "1-5",
            "01:00",
            "01:00-",
            "01:00-05:00 Mars/Olympus",
            "25:00-05:00",
            "01:60-05:00",
            "03:00-03:00",
            "1:00-5:00",
            "01:00-05:00-06:00",
            "24:01-05:00",
            "+1:00-05:00",
        ] {
            assert!(Window::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        /// When it says it opens, it is open, and before that it is not.
        #[test]
        fn opening_is_foretold(
            start in 0i8..24, end in 0i8..24, minute in 0i8..60, seconds in 1_700_000_000i64..1_900_000_000,
            zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]),
        ) {
            prop_assume!(start != end);
            let window = Window::parse(&format!("{start:02}:{minute:02}-{end:02}:{minute:02} {zone}")).unwrap();
            let at = Timestamp::from_second(seconds).unwrap();
            let next = window.opens_at(at);
            if window.is_open(at) {
                return Ok(());
            }
            let next = next.expect("it opens some day");
            prop_assert!(window.is_open(next));
            prop_assert!(!window.is_open(next - 1.second()));
            prop_assert!(next.as_second() - seconds <= 49 * 3600);
        }
    }
}
