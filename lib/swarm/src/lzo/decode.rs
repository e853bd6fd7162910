//! The decoder: every read and write is checked, and no length is believed before it is.

use super::LzoError;

/// Room behind the output, so that short copies can be done in one piece.
const SLACK: usize = 32;

/// Decodes a block and appends the data, at most `limit` bytes of it.
///
/// Reserves `limit` bytes, or what the longest data of so short a block can be if that is less.
///
/// # Errors
/// See [`LzoError`]; `out` is then as it was.
pub fn decompress(input: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), LzoError> {
    let base = out.len();
    // No byte of a block makes more than 255 bytes of data, apart from what each instruction has for nothing.
    let limit = limit.min(input.len().saturating_mul(256).saturating_add(64));
    out.resize(base + limit + SLACK, 0);
    let decoded = decode(input, out.get_mut(base..).unwrap_or_default(), limit);
    out.truncate(base + decoded.unwrap_or(0));
    decoded.map(|_| ())
}

/// Decodes into `dst`, which has [`SLACK`] more bytes than `limit`; returns the length of the data.
fn decode(src: &[u8], dst: &mut [u8], limit: usize) -> Result<usize, LzoError> {
    let mut decoder = Decoder { src, dst, limit, ip: 0, op: 0 };
    // What the instructions below 16 mean depends on the literals just copied: none, 1 to 3, or a run (4).
    let mut state = 0;
    if let Some(&first @ 18..) = src.first() {
        decoder.ip = 1;
        let length = usize::from(first - 17);
        decoder.literals(length)?;
        state = length.min(4);
    }
    loop {
        let code = usize::from(decoder.byte()?);
        let (length, distance, after);
        if code >= 64 {
            let high = usize::from(decoder.byte()?);
            length = (code >> 5) + 1;
            distance = (high << 3) + ((code >> 2) & 7) + 1;
            after = code & 3;
        } else if code >= 32 {
            length = match code & 31 {
                0 => decoder.extension(33)?,
                short => short + 2,
            };
            let low = decoder.u16()?;
            distance = (low >> 2) + 1;
            after = low & 3;
        } else if code >= 16 {
            length = match code & 7 {
                0 => decoder.extension(9)?,
                short => short + 2,
            };
            let low = decoder.u16()?;
            let far = ((code & 8) << 11) + (low >> 2);
            if far == 0 {
                return decoder.end(code);
            }
            distance = far + 0x4000;
            after = low & 3;
        } else if state == 0 {
            let length = match code {
                0 => decoder.extension(18)?,
                short => short + 3,
            };
            decoder.literals(length)?;
            state = 4;
            continue;
        } else {
            let high = usize::from(decoder.byte()?);
            (length, distance) = match state {
                4 => (3, (high << 2) + (code >> 2) + 0x801),
                _ => (2, (high << 2) + (code >> 2) + 1),
            };
            after = code & 3;
        }
        decoder.repeat(length, distance)?;
        if after > 0 {
            decoder.few_literals(after)?;
        }
        state = after;
    }
}

struct Decoder<'a> {
    src: &'a [u8],
    dst: &'a mut [u8],
    /// Bytes of data allowed; `op` never passes it.
    limit: usize,
    ip: usize,
    op: usize,
}

impl Decoder<'_> {
    #[inline(always)]
    fn byte(&mut self) -> Result<u8, LzoError> {
        let byte = *self.src.get(self.ip).ok_or(LzoError::Cut)?;
        self.ip += 1;
        Ok(byte)
    }

    #[inline(always)]
    fn u16(&mut self) -> Result<usize, LzoError> {
        let bytes = self.src.get(self.ip..).and_then(<[u8]>::first_chunk).ok_or(LzoError::Cut)?;
        self.ip += 2;
        Ok(usize::from(u16::from_le_bytes(*bytes)))
    }

    /// Reads a length that did not fit into its instruction.
    fn extension(&mut self, base: usize) -> Result<usize, LzoError> {
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Ok(length + usize::from(last)),
            }
            if length > self.limit {
                return Err(LzoError::TooLong);
            }
        }
    }

    /// Copies a run of literals.
    #[inline(always)]
    fn literals(&mut self, length: usize) -> Result<(), LzoError> {
        if length > self.limit - self.op {
            return Err(LzoError::TooLong);
        }
        let from = self.src.get(self.ip..).ok_or(LzoError::Cut)?;
        let to = self.dst.get_mut(self.op..).ok_or(LzoError::TooLong)?;
        match (from.first_chunk::<16>(), to.first_chunk_mut::<16>()) {
            (Some(from), Some(to)) if length <= 16 => *to = *from,
            _ => {
                let from = from.get(..length).ok_or(LzoError::Cut)?;
                to.get_mut(..length).ok_or(LzoError::TooLong)?.copy_from_slice(from);
            }
        }
        self.ip += length;
        self.op += length;
        Ok(())
    }

    /// Copies one to three literals.
    #[inline(always)]
    fn few_literals(&mut self, length: usize) -> Result<(), LzoError> {
        if length > self.limit - self.op {
            return Err(LzoError::TooLong);
        }
        let from = self.src.get(self.ip..).ok_or(LzoError::Cut)?;
        let to = self.dst.get_mut(self.op..).ok_or(LzoError::TooLong)?;
        match (from.first_chunk::<4>(), to.first_chunk_mut::<4>()) {
            (Some(from), Some(to)) => *to = *from,
            _ => {
                let from = from.get(..length).ok_or(LzoError::Cut)?;
                to.get_mut(..length).ok_or(LzoError::TooLong)?.copy_from_slice(from);
            }
        }
        self.ip += length;
        self.op += length;
        Ok(())
    }

    /// Copies data from `distance` bytes back; the copy may reach into itself.
    #[inline(always)]
    fn repeat(&mut self, length: usize, distance: usize) -> Result<(), LzoError> {
        if length > self.limit - self.op {
            return Err(LzoError::TooLong);
        }
        let from = self.op.checked_sub(distance).ok_or(LzoError::Distance)?;
        let end = self.op + length;
        if distance >= 16 {
            let mut done = 0;
            while done < length {
                self.copy::<16>(from + done, self.op + done)?;
                done += 16;
            }
        } else if distance >= 8 {
            let mut done = 0;
            while done < length {
                self.copy::<8>(from + done, self.op + done)?;
                done += 8;
            }
        } else {
            self.pattern(from, length, distance)?;
        }
        self.op = end;
        Ok(())
    }

    /// Copies a piece that does not reach into itself, or whose surplus is overwritten by what comes next.
    #[inline(always)]
    fn copy<const N: usize>(&mut self, from: usize, to: usize) -> Result<(), LzoError> {
        let piece = *self.dst.get(from..).and_then(<[u8]>::first_chunk::<N>).ok_or(LzoError::TooLong)?;
        *self.dst.get_mut(to..).and_then(<[u8]>::first_chunk_mut::<N>).ok_or(LzoError::TooLong)? = piece;
        Ok(())
    }

    /// Repeats the last one to seven bytes.
    fn pattern(&mut self, from: usize, length: usize, distance: usize) -> Result<(), LzoError> {
        let last = self.dst.get(from..).and_then(<[u8]>::first_chunk::<8>).ok_or(LzoError::TooLong)?;
        let mut piece = [0; 16];
        for (at, byte) in piece.iter_mut().enumerate() {
            *byte = last[at % distance];
        }
        // The most whole repetitions that 16 bytes hold.
        let step = 16 - 16 % distance;
        let mut done = 0;
        while done < length {
            let to = self.op + done;
            *self.dst.get_mut(to..).and_then(<[u8]>::first_chunk_mut::<16>).ok_or(LzoError::TooLong)? = piece;
            done += step;
        }
        Ok(())
    }

    /// Checks the end instruction, whose first byte is `code`.
    fn end(&self, code: usize) -> Result<usize, LzoError> {
        if code != 0x11 {
            return Err(LzoError::End);
        }
        if self.ip != self.src.len() {
            return Err(LzoError::Trailing);
        }
        Ok(self.op)
    }
}
