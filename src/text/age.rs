//! Durations for people: the two largest units that say something.

/// `14 s`, `3 min`, `2 h 5 min`, `43 days`.
pub fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as i64;
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => match seconds % 3600 / 60 {
            0 => format!("{} h", seconds / 3600),
            minutes => format!("{} h {minutes} min", seconds / 3600),
        },
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn durations_are_short() {
        let said = [0.4, 14.0, 119.0, 200.0, 7500.0, 10_800.0, 259_200.0].map(age);
        assert_eq!(said, ["0 s", "14 s", "119 s", "3 min", "2 h 5 min", "3 h", "3 days"]);
    }
}
