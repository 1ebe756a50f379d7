//! NTP timestamps as RTCP and `abs-capture-time` carry them, and the 16.16 fixed-point durations
//! of report blocks (RFC 3550 §4, §6.4).

use std::time::Duration;

/// Seconds from the NTP era 0 (1900) to the Unix epoch (1970).
pub const NTP_UNIX_OFFSET_SECS: u64 = 2_208_988_800;

/// A 64-bit NTP timestamp: whole seconds since 1900 above, fraction of a second (2⁻³² s) below.
///
/// Years after 2036 wrap to era 1; [`NtpTime::to_unix`] places values below the Unix epoch there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NtpTime(u64);

impl NtpTime {
    /// From the 64 bits on the wire.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits on the wire.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// From time since the Unix epoch. The fraction is rounded so that [`to_unix`](Self::to_unix)
    /// returns the same nanoseconds.
    pub fn from_unix(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs().wrapping_add(NTP_UNIX_OFFSET_SECS);
        Self((seconds << 32) | duration_fraction(since_epoch))
    }

    /// Time since the Unix epoch, for instants from 1970 to 2106.
    pub fn to_unix(self) -> Duration {
        let seconds = u64::from(self.seconds());
        let era = if seconds < NTP_UNIX_OFFSET_SECS { 1u64 << 32 } else { 0 };
        let nanos = (u64::from(self.fraction()) * 1_000_000_000) >> 32;
        Duration::new(seconds + era - NTP_UNIX_OFFSET_SECS, nanos as u32)
    }

    /// Whole seconds of the era.
    pub const fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Fraction of a second, units of 2⁻³² s.
    pub const fn fraction(self) -> u32 {
        self.0 as u32
    }

    /// The middle 32 bits: 16.16 fixed-point seconds, as `LSR` of a report block.
    pub const fn compact(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// This instant moved forward; wraps with the era.
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.wrapping_add((by.as_secs() << 32) | duration_fraction(by)))
    }

    /// This instant moved back; wraps with the era.
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.wrapping_sub((by.as_secs() << 32) | duration_fraction(by)))
    }

    /// Signed distance `self - earlier`, units of 2⁻³² s.
    pub const fn bits_since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0) as i64
    }

    /// Time passed since `earlier`; `None` if `earlier` is later.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        let bits = u64::try_from(self.bits_since(earlier)).ok()?;
        let nanos = ((bits & u64::from(u32::MAX)) * 1_000_000_000) >> 32;
        Some(Duration::new(bits >> 32, nanos as u32))
    }
}

/// Fraction of a second of `duration` in 2⁻³² s. Rounded up, so that a conversion back to
/// nanoseconds, which rounds down, returns the nanoseconds it came from.
fn duration_fraction(duration: Duration) -> u64 {
    (u64::from(duration.subsec_nanos()) << 32).div_ceil(1_000_000_000)
}

/// A duration as 16.16 fixed-point seconds (`DLSR`); saturates at 65,536 s.
pub fn compact_from_duration(duration: Duration) -> u32 {
    let bits = (u128::from(duration.as_secs()) << 32) | u128::from(duration_fraction(duration));
    u32::try_from(bits >> 16).unwrap_or(u32::MAX)
}

/// A duration from 16.16 fixed-point seconds.
pub fn compact_to_duration(compact: u32) -> Duration {
    Duration::from_nanos((u64::from(compact) * 1_000_000_000) >> 16)
}

/// Round-trip time from a report block (RFC 3550 §6.4.1): `now` on the clock of the sender report
/// that the block answers. `None` if no report was answered yet, or if the reporter's numbers would
/// make the round trip negative or longer than `max`.
pub fn round_trip_time(
    now: NtpTime,
    last_sr: u32,
    delay_since_last_sr: u32,
    max: Duration,
) -> Option<Duration> {
    if last_sr == 0 {
        return None;
    }
    let compact = now.compact().wrapping_sub(last_sr).wrapping_sub(delay_since_last_sr);
    // A negative round trip wraps to more than 32,768 s.
    let rtt = compact_to_duration(compact);
    (rtt <= max).then_some(rtt)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unix_epoch_is_2208988800_seconds_into_era_0() {
        let ntp = NtpTime::from_unix(Duration::ZERO);
        assert_eq!((ntp.seconds(), ntp.fraction()), (2_208_988_800, 0));
        let half = NtpTime::from_unix(Duration::from_millis(1_500));
        assert_eq!((half.seconds(), half.fraction()), (2_208_988_801, 1 << 31));
    }

    #[test]
    fn era_1_follows_february_2036() {
        let unix = Duration::from_secs((1u64 << 32) - NTP_UNIX_OFFSET_SECS + 5);
        let ntp = NtpTime::from_unix(unix);
        assert_eq!(ntp.seconds(), 5);
        assert_eq!(ntp.to_unix(), unix);
    }

    #[test]
    fn rtt_of_the_rfc_3550_example() {
        // RFC 3550 §6.4.1, figure 2: A = 0xb710:8000, LSR = 0xb705:2000, DLSR = 0x0005:4000 (5.25 s).
        let now = NtpTime::from_bits(0x0000_b710_8000_0000);
        let rtt = round_trip_time(now, 0xb705_2000, 0x0005_4000, Duration::from_secs(60));
        assert_eq!(rtt, Some(Duration::from_millis(6_125)));
    }

    #[test]
    fn rtt_of_impossible_reports_is_refused() {
        let now = NtpTime::from_bits(10 << 32);
        let max = Duration::from_secs(60);
        assert_eq!(round_trip_time(now, 0, 0, max), None);
        assert_eq!(round_trip_time(now, now.compact(), 1, max), None);
        assert_eq!(round_trip_time(NtpTime::from_bits(100 << 32), 1 << 16, 0, max), None);
    }

    proptest! {
        #[test]
        fn unix_round_trip(secs in 0u64..4_294_967_296, nanos in 0u32..1_000_000_000) {
            let unix = Duration::new(secs, nanos);
            prop_assert_eq!(NtpTime::from_unix(unix).to_unix(), unix);
        }

        #[test]
        fn adding_then_measuring_returns_the_duration(
            bits in any::<u64>(), secs in 0u64..1_000_000, nanos in 0u32..1_000_000_000,
        ) {
            let start = NtpTime::from_bits(bits);
            let by = Duration::new(secs, nanos);
            prop_assert_eq!(start.plus(by).since(start), Some(by));
            prop_assert_eq!(start.plus(by).minus(by), start);
        }
    }
}
