//! Moments as text: the DateTime profile of XEP-0082, version 1.1.1. In the code a moment is microseconds since 1970, UTC.

use time::{Date, Month, OffsetDateTime, Time};

/// Why a text is not a moment. To a client this is `<bad-request/>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a date and time as XEP-0082 has it")]
pub struct Error;

/// The last moment that four digits of a year can say.
const LAST: u64 = 253_402_300_799_999_999;
/// Digits of the fraction that are looked at; more are refused rather than scanned.
const FRACTION_DIGITS: usize = 32;

/// Reads `CCYY-MM-DDThh:mm:ss[.fraction](Z|+hh:mm|-hh:mm)`.
///
/// Digits behind the microsecond are cut off. A moment before 1970 becomes 0: nothing here is older, and clients that mean "from
/// the beginning" send the year 1.
///
/// # Errors
/// [`Error`] for anything else: no zone, no separators, a 60th second, a 24th hour, a 30th of February.
pub fn parse(text: &str) -> Result<u64, Error> {
    let bytes = text.as_bytes();
    let (head, tail) = bytes.split_at_checked(19).ok_or(Error)?;
    let [y1, y2, y3, y4, b'-', mo1, mo2, b'-', d1, d2, b'T', h1, h2, b':', mi1, mi2, b':', s1, s2] = *head
    else {
        return Err(Error);
    };
    let year = u16::from(two(y1, y2)?) * 100 + u16::from(two(y3, y4)?);
    let month = Month::try_from(two(mo1, mo2)?).map_err(|_| Error)?;
    let date = Date::from_calendar_date(year.into(), month, two(d1, d2)?).map_err(|_| Error)?;
    let time = Time::from_hms(two(h1, h2)?, two(mi1, mi2)?, two(s1, s2)?).map_err(|_| Error)?;
    let (micros, zone) = match tail {
        [b'.', rest @ ..] => fraction(rest)?,
        _ => (0, tail),
    };
    let seconds = date.with_time(time).assume_utc().unix_timestamp() - offset(zone)?;
    Ok(u64::try_from(seconds).map_or(0, |seconds| seconds * 1_000_000 + micros))
}

/// Writes a moment in UTC, ending in `Z`; with six digits of fraction unless they are all zero. Moments after the year 9999
/// become its last.
#[must_use]
pub fn format(micros: u64) -> String {
    let micros = micros.min(LAST);
    let seconds = i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX);
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day) = moment.to_calendar_date();
    let (hour, minute, second) = moment.to_hms();
    let month = u8::from(month);
    let fraction = match micros % 1_000_000 {
        0 => String::new(),
        rest => format!(".{rest:06}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

fn two(tens: u8, ones: u8) -> Result<u8, Error> {
    if tens.is_ascii_digit() && ones.is_ascii_digit() {
        Ok((tens - b'0') * 10 + ones - b'0')
    } else {
        Err(Error)
    }
}

/// The microseconds of a fraction, and what follows its digits.
fn fraction(text: &[u8]) -> Result<(u64, &[u8]), Error> {
    let length = text.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=FRACTION_DIGITS).contains(&length) {
        return Err(Error);
    }
    let (digits, rest) = text.split_at_checked(length).ok_or(Error)?;
    let six = digits.iter().chain(std::iter::repeat(&b'0')).take(6);
    Ok((six.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')), rest))
}

/// How many seconds a zone is ahead of UTC: up to 14 hours (XML Schema, `dateTime`).
fn offset(zone: &[u8]) -> Result<i64, Error> {
    match *zone {
        [b'Z'] => Ok(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (i64::from(two(h1, h2)?), i64::from(two(m1, m2)?));
            let seconds = hours * 3600 + minutes * 60;
            if minutes > 59 || seconds > 14 * 3600 {
                return Err(Error);
            }
            Ok(if sign == b'+' { seconds } else { -seconds })
        }
        _ => Err(Error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_moments() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:00.000001Z", 1),
            ("1970-01-01T00:00:00.0000019Z", 1),
            ("1970-01-01T00:00:01.5Z", 1_500_000),
            ("2002-09-10T23:08:25Z", 1_031_699_305_000_000),
            ("2002-09-10T23:08:25.123Z", 1_031_699_305_123_000),
            ("2002-09-11T01:08:25+02:00", 1_031_699_305_000_000),
            ("2002-09-10T18:08:25-05:00", 1_031_699_305_000_000),
            ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
            ("1970-01-01T01:00:00+02:00", 0),
            ("0001-01-01T00:00:00Z", 0),
            ("1969-07-21T02:56:15.5Z", 0),
            ("9999-12-31T23:59:59.999999Z", LAST),
        ] {
            assert_eq!(parse(text), Ok(micros), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "Z",
            "2002-09-10",
            "20020910T23:08:25",
            "2002-09-10T23:08:25",
            "2002-09-10 23:08:25Z",
            "2002-09-10t23:08:25Z",
            "2002-09-10T23:08:25z",
            "2002-09-10T23:08:25Z ",
            " 2002-09-10T23:08:25Z",
            "2002-09-10T23:08Z",
            "2002-09-10T23:08:60Z",
            "2002-09-10T24:00:00Z",
            "2002-09-10T23:60:25Z",
            "2002-13-10T23:08:25Z",
            "2002-00-10T23:08:25Z",
            "2002-09-00T23:08:25Z",
            "2023-02-29T00:00:00Z",
            "2002-09-31T23:08:25Z",
            "2002-09-10T23:08:25.Z",
            "2002-09-10T23:08:25,5Z",
            "2002-09-10T23:08:25+0200",
            "2002-09-10T23:08:25+02",
            "2002-09-10T23:08:25+14:01",
            "2002-09-10T23:08:25+02:60",
            "-002-09-10T23:08:25Z",
            "+002-09-10T23:08:25Z",
            "12002-09-10T23:08:25Z",
            "２００2-09-10T23:08:25Z",
            "2002-09-10T23:08:2\u{665}Z",
        ] {
            assert_eq!(parse(text), Err(Error), "{text}");
        }
        assert_eq!(parse(&format!("2002-09-10T23:08:25.{}Z", "0".repeat(33))), Err(Error));
    }

    #[test]
    fn writes_moments() {
        assert_eq!(format(0), "1970-01-01T00:00:00Z");
        assert_eq!(format(1_031_699_305_000_001), "2002-09-10T23:08:25.000001Z");
        assert_eq!(format(u64::MAX), "9999-12-31T23:59:59.999999Z");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(micros in 0..=LAST) {
            proptest::prop_assert_eq!(parse(&format(micros)), Ok(micros));
        }
    }
}
