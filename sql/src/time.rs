//! Times as text.

use chrono::{DateTime, NaiveDate, NaiveDateTime};

const MS_A_DAY: u64 = 86_400_000;

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant's `civil_from_days`, for
/// days that aren't before 1970).
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year.
    let days = days + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// ISO 8601 in UTC with milliseconds, of milliseconds since 1970.
pub(crate) fn iso8601(ms: u64) -> String {
    let (year, month, day) = civil(ms / MS_A_DAY);
    let ms = ms % MS_A_DAY;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// Milliseconds since 1970 of a time in ISO 8601, as [`iso8601`] prints it or as SQLite's date functions do: with a blank
/// for the T, without a part of a second, or only a day; in UTC unless it says otherwise.
pub(crate) fn instant(text: &str) -> Option<u64> {
    let text = text.trim();
    let with_zone = DateTime::parse_from_rfc3339(text).map(|time| time.timestamp_millis());
    let without = || {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().and_then(|day| day.and_hms_opt(0, 0, 0));
        let time = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        time.or(day).map(|time| time.and_utc().timestamp_millis())
    };
    u64::try_from(with_zone.ok().or_else(without)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        // From `date -u -d @seconds`.
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(iso8601(ms), text);
            assert_eq!(instant(text), Some(ms));
        }
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        let noon = Some(951_825_600_000);
        for text in [
            "2000-02-29T12:00:00Z",
            "2000-02-29 12:00:00",
            " 2000-02-29 12:00:00.000 ",
            "2000-02-29T12:00",
            "2000-02-29 12:00",
            "2000-02-29T14:00:00+02:00",
        ] {
            assert_eq!(instant(text), noon, "{text}");
        }
        assert_eq!(instant("2000-02-29"), Some(951_782_400_000));
        for text in ["", "yesterday", "2000-02-30", "12:00", "1969-12-31T23:59:59Z", "951825600"] {
            assert_eq!(instant(text), None, "{text}");
        }
    }

    #[test]
    fn every_day_of_a_thousand_years_follows_the_one_before() {
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..366_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            day += 1;
            if day > lengths[month as usize - 1] + u64::from(leap && month == 2) {
                day = 1;
                month += 1;
            }
            if month > 12 {
                month = 1;
                year += 1;
            }
        }
    }

    #[test]
    fn the_largest_number_is_no_trouble() {
        assert!(iso8601(u64::MAX).ends_with('Z'));
    }
}
