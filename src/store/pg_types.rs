//! PostgreSQL's `xid` and `tid` for sqlx, which knows neither (binary format only), and rekey's own words.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

use crate::crypto::Fingerprint;
use crate::rotation::{
    Addressing, ChunkKind, Desired, Direction, PassKind, PassOutcome, QuarantineReason, RecordedSource,
    State, Tid,
};

/// A 32-bit transaction id as it stands in a row's `xmin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Xid(pub u32);

impl Xid {
    /// Whether this id is older than `other`, as PostgreSQL compares them; permanent ids (0–2) are older than all.
    pub fn precedes(self, other: Xid) -> bool {
        self.0 < 3 || (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// The same in full, given a current one: `xmin` is never more than 2^31 away from it.
    pub fn widen(self, FullXid(current): FullXid) -> FullXid {
        let candidate = (current & !0xffff_ffff) | u64::from(self.0);
        let is_later = candidate > current.saturating_add(1 << 31);
        FullXid(if is_later { candidate.wrapping_sub(1 << 32) } else { candidate })
    }
}

/// PostgreSQL's `xid8`: a transaction id that is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullXid(pub u64);

impl FullXid {
    /// As it stands in a row's `xmin`.
    pub fn short(self) -> Xid {
        Xid(self.0 as u32)
    }
}

// src/include/catalog/pg_type.dat: tid 27, xid 28, _xid8 271, _tid 1010, _xid 1011, xid8 5069.
impl Type<Postgres> for FullXid {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(5069))
    }
}

impl PgHasArrayType for FullXid {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(271))
    }
}

impl Encode<'_, Postgres> for FullXid {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for FullXid {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(FullXid(u64::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}

impl Type<Postgres> for Xid {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(28))
    }
}

impl PgHasArrayType for Xid {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1011))
    }
}

impl Encode<'_, Postgres> for Xid {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.0.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Xid {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Xid(u32::from_be_bytes(value.as_bytes()?.try_into()?)))
    }
}

impl Type<Postgres> for Tid {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(27))
    }
}

impl PgHasArrayType for Tid {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(1010))
    }
}

impl Encode<'_, Postgres> for Tid {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buf.extend_from_slice(&self.block.to_be_bytes());
        buf.extend_from_slice(&self.offset.to_be_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Tid {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes = value.as_bytes()?;
        let (block, offset) = bytes.split_at_checked(4).ok_or("a tid has six bytes")?;
        Ok(Tid {
            block: u32::from_be_bytes(block.try_into()?),
            offset: u16::from_be_bytes(offset.try_into()?),
        })
    }
}

/// Types whose text stands in the database.
macro_rules! texts {
    ($($text:ty),*) => {
        $(
            impl Type<Postgres> for $text {
                fn type_info() -> PgTypeInfo {
                    <str as Type<Postgres>>::type_info()
                }
                fn compatible(ty: &PgTypeInfo) -> bool {
                    <str as Type<Postgres>>::compatible(ty)
                }
            }

            impl PgHasArrayType for $text {
                fn array_type_info() -> PgTypeInfo {
                    <&str as PgHasArrayType>::array_type_info()
                }
            }

            impl Encode<'_, Postgres> for $text {
                fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                    self.to_string().encode_by_ref(buf)
                }
            }

            impl Decode<'_, Postgres> for $text {
                fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                    Ok(value.as_str()?.parse()?)
                }
            }
        )*
    };
}

texts!(
    State,
    Desired,
    Direction,
    Addressing,
    ChunkKind,
    PassKind,
    PassOutcome,
    QuarantineReason,
    Fingerprint,
    RecordedSource
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widen_crosses_an_epoch_in_both_directions() {
        let widened = |short, current| Xid(short).widen(FullXid(current)).0;
        assert_eq!(widened(5, 7), 5);
        assert_eq!(widened(0xffff_fff0, (1 << 32) + 5), 0xffff_fff0);
        assert_eq!(widened(3, (1 << 32) + 5), (1 << 32) + 3);
        assert_eq!(widened(9, 7), 9, "a row may be younger than the id we know");
    }
}
