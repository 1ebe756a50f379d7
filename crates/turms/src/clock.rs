//! Wall-clock time as the adapter meets it: mutes, blocks and tokens carry dates. It comes in as a
//! value, so that tests run under virtual time.

use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::policy::UnixMillis;

/// A source of Unix time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixMillis + Send + Sync>);

impl Clock {
    /// The operating system's.
    pub fn system() -> Self {
        Self(Arc::new(|| {
            let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
        }))
    }

    /// Begins at a date and goes on with tokio's clock, which tests can pause.
    pub fn from(start: UnixMillis) -> Self {
        let began = Instant::now();
        Self(Arc::new(move || {
            start.saturating_add(i64::try_from(began.elapsed().as_millis()).unwrap_or(i64::MAX))
        }))
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> UnixMillis {
        (self.0)()
    }

    /// Unix seconds.
    pub fn now_s(&self) -> i64 {
        self.now_ms().div_euclid(1000)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now_ms())
    }
}

/// Reads a date of Turms' JSON: ISO 8601 with an offset (`2025-07-29T11:32:52.000+00:00`), or Unix
/// milliseconds.
pub fn parse_date(text: &str) -> Option<UnixMillis> {
    if let Ok(millis) = text.parse() {
        return Some(millis);
    }
    let (date, time) = text.split_once(['T', ' '])?;
    let zone_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone_at);
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut clock = time.splitn(3, ':');
    let hours: i64 = clock.next()?.parse().ok()?;
    let minutes: i64 = clock.next()?.parse().ok()?;
    let seconds: f64 = clock.next().unwrap_or("0").parse().ok()?;
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) || !(0.0..61.0).contains(&seconds) {
        return None;
    }
    let offset_minutes = match zone {
        "" | "Z" => 0,
        zone => {
            let digits: String = zone[1..].chars().filter(char::is_ascii_digit).collect();
            if digits.len() != 4 {
                return None;
            }
            let value: i64 = digits.parse().ok()?;
            let minutes = value / 100 * 60 + value % 100;
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    let minutes = days_from_civil(year, month, day) * 1440 + hours * 60 + minutes - offset_minutes;
    Some(minutes * 60_000 + (seconds * 1000.0).round() as i64)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar, by counting from March, so that leap
/// days come last in a year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_turms_are_read() {
        assert_eq!(parse_date("1970-01-01T00:00:00.000+00:00"), Some(0));
        assert_eq!(parse_date("2025-07-29T11:32:52.000+00:00"), Some(1_753_788_772_000));
        assert_eq!(parse_date("2025-07-29T13:32:52.5+02:00"), Some(1_753_788_772_500));
        assert_eq!(parse_date("2024-02-29T00:00:00Z"), Some(1_709_164_800_000));
        assert_eq!(parse_date("1700000000000"), Some(1_700_000_000_000));
        for bad in
            ["", "yesterday", "2025-13-01T00:00:00Z", "2025-07-29T11", "2025-07-29T11:00:00+é"]
        {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
