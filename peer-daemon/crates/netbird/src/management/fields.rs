//! The outermost fields of an encoded message, without decoding what they hold.

use std::ops::Range;

use crate::sealed::DecodeError;

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it begins.
    pub at: usize,
    /// Its number.
    pub number: u64,
    /// What it holds.
    pub value: Value,
}

/// What a field holds, by wire type: <https://protobuf.dev/programming-guides/encoding/#structure>
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number of variable length.
    Number(u64),
    /// Four or eight bytes.
    Fixed,
    /// Text, bytes or another message, at this place.
    Bytes(Range<usize>),
}

/// The fields of the message that is `text[within]`, with places counted from the start of `text`. The last item is an error if
/// that is no message; groups, which nobody uses any more, are none.
pub fn fields(text: &[u8], within: Range<usize>) -> impl Iterator<Item = Result<Field, DecodeError>> {
    let mut reader = Reader { text: text.get(..within.end).unwrap_or_default(), at: within.start };
    let mut over = within.end > text.len();
    std::iter::from_fn(move || {
        if over || reader.at >= reader.text.len() {
            return None;
        }
        let at = reader.at;
        let field = reader.field();
        over = field.is_none();
        Some(field.ok_or(DecodeError::Damaged { at }))
    })
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn field(&mut self) -> Option<Field> {
        let at = self.at;
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.skip(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.skip(length)?)
            }
            5 => self.skip(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some(Field { at, number: key >> 3, value })
    }

    fn skip(&mut self, bytes: usize) -> Option<Range<usize>> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.text.len())?;
        Some(std::mem::replace(&mut self.at, end)..end)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_apart_by_kind_and_place() {
        let text = [0xff, 0x08, 0x96, 0x01, 0x12, 2, 7, 8, 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8, 0xff];
        let found: Vec<_> = fields(&text, 1..text.len() - 1).map(|field| field.expect("a field")).collect();
        let field = |at, number, value| Field { at, number, value };
        assert_eq!(
            found,
            [
                field(1, 1, Value::Number(150)),
                field(4, 2, Value::Bytes(6..8)),
                field(8, 3, Value::Fixed),
                field(13, 4, Value::Fixed)
            ]
        );
    }

    #[test]
    fn what_is_cut_or_unknown_is_an_error_and_the_end() {
        for (text, at) in [(&[0x08, 1, 0x12, 5, 0][..], 2), (&[0x0b, 1], 0), (&[0x80; 12], 0), (&[0x1d, 1], 0)] {
            let last = fields(text, 0..text.len()).last();
            assert_eq!(last, Some(Err(DecodeError::Damaged { at })), "{text:?}");
        }
        assert_eq!(fields(&[1, 2], 0..9).count(), 0, "there is no such place");
    }
}
