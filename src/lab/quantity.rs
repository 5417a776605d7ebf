//! Amounts as the API writes them: `1Gi`, `500m`, `1e3`.
//!
//! Not a unit for people (`words::size`). Read by the rules, admission, quota and whoever compares capacities. What
//! must stay true: what is parsed and printed is what the real server prints, so that equal amounts compare equal.

use serde_json::Value;
use std::cmp::Ordering;

/// What the real server says of a text that is no amount.
pub const NOT_A_QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Decimal,
    Binary,
    Exponent,
}

/// An exact amount in billionths.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

const ONE: i128 = 1_000_000_000;

impl Quantity {
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::Decimal };

    pub fn whole(number: i64) -> Quantity {
        Quantity { nano: i128::from(number) * ONE, format: Format::Decimal }
    }

    pub fn parse(text: &str) -> Option<Quantity> {
        let digits = text.trim_start_matches(['+', '-']);
        if text.len() - digits.len() > 1 {
            return None;
        }
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return None;
        }
        let mut value: i128 = format!("0{whole}{fraction}").parse().ok()?;
        let mut decimals = i32::try_from(fraction.len()).ok()?;
        let format = match suffix {
            "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => {
                let power = "KMGTPE".find(&suffix[..1])? as u32 + 1;
                value = value.checked_mul(1i128 << (10 * power))?;
                Format::Binary
            }
            "n" | "u" | "m" | "" | "k" | "M" | "G" | "T" | "P" | "E" => {
                let at = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].iter().position(|one| *one == suffix)?;
                decimals -= 3 * (at as i32 - 3);
                Format::Decimal
            }
            _ => {
                let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
                decimals -= exponent;
                Format::Exponent
            }
        };
        let shift = 9 - decimals;
        let power = 10i128.checked_pow(shift.unsigned_abs())?;
        let mut nano = if shift >= 0 { value.checked_mul(power)? } else { (value + power - 1) / power };
        if text.starts_with('-') {
            nano = -nano;
        }
        Some(Quantity { nano, format })
    }

    /// Of a JSON text or number.
    pub fn of(value: &Value) -> Option<Quantity> {
        match value {
            Value::String(text) => Quantity::parse(text),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => None,
        }
    }

    pub fn is_whole(self) -> bool {
        self.nano % ONE == 0
    }

    /// Rounded up.
    pub fn as_i64(self) -> i64 {
        i64::try_from(self.nano.div_euclid(ONE) + i128::from(self.nano.rem_euclid(ONE) != 0)).unwrap_or(i64::MAX)
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    pub fn ratio(self, other: Quantity) -> f64 {
        self.nano as f64 / other.nano as f64
    }

    /// The sum, printed as the first that is not zero.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        let format = if self.nano == 0 { other.format } else { self.format };
        Quantity { nano: self.nano + other.nano, format }
    }

    #[must_use]
    pub fn minus(self, other: Quantity) -> Quantity {
        self.plus(Quantity { nano: -other.nano, format: other.format })
    }

    /// As Go's `%#v` shows it.
    pub fn go(self) -> String {
        let mut scale = 0;
        let mut value = self.nano;
        if value % ONE == 0 {
            value /= ONE;
        } else {
            scale = -9;
            while value % 10 == 0 {
                value /= 10;
                scale += 1;
            }
        }
        let format = match self.format {
            Format::Decimal => "DecimalSI",
            Format::Binary => "BinarySI",
            Format::Exponent => "DecimalExponent",
        };
        let shown = if scale == 0 { self.to_string() } else { String::new() };
        format!(
            "resource.Quantity{{i:resource.int64Amount{{value:{value}, scale:{scale}}}, \
             d:resource.infDecAmount{{Dec:(*inf.Dec)(nil)}}, s:\"{shown}\", Format:\"{format}\"}}"
        )
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nano == other.nano
    }
}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        self.nano.partial_cmp(&other.nano)
    }
}

impl std::fmt::Display for Quantity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.nano == 0 {
            return write!(out, "0");
        }
        let small = self.nano.abs() < 1024 * ONE;
        if self.format == Format::Binary && !small && self.is_whole() {
            let mut value = self.nano / ONE;
            let mut power = 0;
            while value % 1024 == 0 && power < 6 {
                value /= 1024;
                power += 1;
            }
            return write!(out, "{value}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut value = self.nano;
        let mut power = 0;
        while value % 1000 == 0 && power < 9 {
            value /= 1000;
            power += 1;
        }
        match (self.format, power) {
            (_, 3) => write!(out, "{value}"),
            (Format::Exponent, _) => write!(out, "{value}e{}", 3 * (power as i32 - 3)),
            _ => write!(out, "{value}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
        }
    }
}

/// Writes every amount of a resource list as the real server does. What is no amount stays for the rules to refuse.
pub fn tidy(list: &mut Value) {
    let Some(list) = list.as_object_mut() else { return };
    for value in list.values_mut() {
        if let Some(quantity) = Quantity::of(value) {
            *value = quantity.to_string().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_the_server_writes_them() {
        for (text, shown) in [
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1000", "1k"),
            ("1500", "1500"),
            ("0", "0"),
            ("-1", "-1"),
            ("1e3", "1e3"),
            ("1E", "1E"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("1073741824", "1073741824"),
            ("+2", "2"),
            (".5", "500m"),
        ] {
            assert_eq!(Quantity::parse(text).map(|one| one.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["", "abc", "1x", "1.2.3", "--1", "1 Gi", "Gi", "1e"] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn amounts_compare_by_value() {
        let of = |text| Quantity::parse(text).unwrap();
        assert!(of("1Gi") > of("1G") && of("1024Mi") == of("1Gi") && of("100m") < of("1"));
        assert_eq!(Quantity::ZERO.plus(of("1Gi")).plus(of("1Gi")).to_string(), "2Gi");
        assert_eq!((of("1.5").as_i64(), of("1.5").is_whole()), (2, false));
    }
}
