//! JSON as rekey prints it: a whole number without a fraction, and one line, or indented for people.

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use serde_json::{Error, Serializer};
use std::io::{Result, Write};

/// On one line.
pub fn compact(value: &impl Serialize) -> std::result::Result<String, Error> {
    written(value, CompactFormatter)
}

/// Indented.
pub fn pretty(value: &impl Serialize) -> std::result::Result<String, Error> {
    written(value, PrettyFormatter::new())
}

fn written(value: &impl Serialize, form: impl Formatter) -> std::result::Result<String, Error> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, Whole(form)))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Up to here, every whole number is one of f64's.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Writes `3.0` as `3`.
struct Whole<F>(F);

impl<F: Formatter> Formatter for Whole<F> {
    fn write_f64<W: ?Sized + Write>(&mut self, to: &mut W, value: f64) -> Result<()> {
        if value.fract() == 0.0 && value.abs() < EXACT {
            self.0.write_i64(to, value as i64)
        } else {
            self.0.write_f64(to, value)
        }
    }

    fn begin_array<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.begin_array(to)
    }

    fn end_array<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.end_array(to)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> Result<()> {
        self.0.begin_array_value(to, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.end_array_value(to)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.begin_object(to)
    }

    fn end_object<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.end_object(to)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, to: &mut W, first: bool) -> Result<()> {
        self.0.begin_object_key(to, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.begin_object_value(to)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, to: &mut W) -> Result<()> {
        self.0.end_object_value(to)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{compact, pretty};

    #[test]
    fn whole_numbers_have_no_fraction() {
        let value = json!({ "a": [3.0, -0.0, 2.5, 1e300, 7], "b": {}, "c": [] });
        assert_eq!(compact(&value).unwrap(), r#"{"a":[3,0,2.5,1e+300,7],"b":{},"c":[]}"#);
        let read: serde_json::Value = serde_json::from_str(&pretty(&value).unwrap()).unwrap();
        assert_eq!(read["a"][2], 2.5);
        assert_eq!(pretty(&json!({ "a": [1.0] })).unwrap(), "{\n  \"a\": [\n    1\n  ]\n}");
    }
}
