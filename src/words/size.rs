//! Kubernetes quantities of storage: parsed for comparing, kept as written for sending.

use super::Problem;

const UNITS: [(&str, u128, u128); 14] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
];

/// Parses a quantity such as `10Gi`, `1.5G`, `2e9` or `500m` into bytes, rounded up.
///
/// # Errors
/// If the text is not a quantity, is negative, or does not fit into 64 bits.
pub fn parse_bytes(text: &str) -> Result<u64, Problem> {
    let wrong =
        || Problem::usage(format!("`{text}` is not a size")).hint("write sizes as Kubernetes does: 500Mi, 10Gi, 2T");
    let trimmed = text.trim();
    let (number, multiplier, divisor) = UNITS
        .iter()
        .find_map(|(unit, by, per)| trimmed.strip_suffix(unit).map(|rest| (rest, *by, *per)))
        .or_else(|| trimmed.strip_suffix('E').map(|rest| (rest, 10u128.pow(18), 1)))
        .unwrap_or((trimmed, 1, 1));
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| wrong())?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.len() > 24 || !digits.bytes().all(|b| b.is_ascii_digit()) || exponent.abs() > 18 {
        return Err(wrong());
    }
    let value: u128 = digits.parse().map_err(|_| wrong())?;
    let scale = exponent - i32::try_from(fraction.len()).map_err(|_| wrong())?;
    let power = 10u128.checked_pow(scale.unsigned_abs()).ok_or_else(wrong)?;
    let (up, down) = if scale >= 0 { (power, 1) } else { (1, power) };
    let numerator = value.checked_mul(multiplier).and_then(|v| v.checked_mul(up)).ok_or_else(wrong)?;
    let bytes = numerator.div_ceil(divisor.checked_mul(down).ok_or_else(wrong)?);
    u64::try_from(bytes).map_err(|_| wrong())
}

/// `1536` → `1.5 KiB`: for people, never for sending.
pub fn human_bytes(bytes: u64) -> String {
    const NAMES: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut name = 0;
    while value >= 1024.0 && name + 1 < NAMES.len() {
        value /= 1024.0;
        name += 1;
    }
    if name == 0 || value >= 100.0 || value.fract() < 0.05 {
        format!("{value:.0} {}", NAMES[name])
    } else {
        format!("{value:.1} {}", NAMES[name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_mean_what_kubernetes_means() {
        for (text, bytes) in [
            ("0", 0),
            ("1", 1),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("2e3", 2000),
            ("1E", 1_000_000_000_000_000_000),
            ("1.1", 2),
            ("100m", 1),
            ("1500m", 2),
            ("5k", 5000),
            ("64Mi", 64 << 20),
        ] {
            assert_eq!(parse_bytes(text).ok(), Some(bytes), "{text}");
        }
        for text in ["", "Gi", "-1", "1 Gi x", "1.2.3", "99999999999999999999E", "0x10", "1e99", "1KiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_read_well() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1 GiB"), (200 << 20, "200 MiB")]
        {
            assert_eq!(human_bytes(bytes), text);
        }
    }
}
