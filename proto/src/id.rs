//! Identities.

use std::fmt;

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Wraps the bytes as they stand on the wire.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The identity in `bytes`; `None` if the length is wrong or all bytes are zero, which OTLP calls invalid.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                let id: [u8; $len] = bytes.try_into().ok()?;
                (id != [0; $len]).then_some(Self(id))
            }

            /// The bytes as they stand on the wire.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

bytes_id!(
    /// A W3C trace id, 16 bytes, shown as lower-case hex.
    TraceId,
    16
);
bytes_id!(
    /// A W3C span id, 8 bytes, shown as lower-case hex.
    SpanId,
    8
);
bytes_id!(
    /// Identity of a row of `calls`. Of a span: a 64-bit hash of its tenant and trace, then its span id; else a 128-bit hash of the record.
    /// See `collector::recognise`.
    RowId,
    16
);
bytes_id!(
    /// Identity of a write-ahead log folder, drawn at random when it is created; shown as hex, it is the `appId` of
    /// the writer's Delta transactions.
    WriterId,
    16
);

/// Running number of an export in the log of its writer. It begins at 1, or where the log before in the same data folder
/// ended; 0 stands before all.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct WalPosition(pub u64);

impl WalPosition {
    /// The position that follows.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position as Delta's `txn.version` and as the column `wal_position` hold it.
    #[must_use]
    pub const fn as_i64(self) -> i64 {
        self.0.cast_signed()
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_wrong_length_or_of_zeros_are_none() {
        assert_eq!(SpanId::from_slice(&[1; 7]), None);
        assert_eq!(SpanId::from_slice(&[0; 8]), None);
        assert_eq!(SpanId::from_slice(&[0xab; 8]).map(|id| id.to_string()).as_deref(), Some("abababababababab"));
    }
}
