//! Cuts what a server sends into top-level pieces.

/// What stands at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// `<?xml …?>`
    Declaration(usize),
    /// `<stream:stream …>`, the open tag only.
    Open(usize),
    /// One whole element.
    Element(usize),
    /// `</stream:stream>`
    Close(usize),
    /// White space between elements.
    Space(usize),
}

/// Remembers how far it has looked into the unconsumed bytes.
#[derive(Debug, Default)]
pub struct Framer {
    at: usize,
    depth: usize,
}

impl Framer {
    /// Looks at `buf`, which starts with the first byte that was not consumed yet; `None` = needs more bytes.
    pub fn next(&mut self, buf: &[u8]) -> Option<Piece> {
        if self.at == 0 {
            let space = buf.iter().take_while(|b| b.is_ascii_whitespace()).count();
            if space > 0 {
                return Some(Piece::Space(space));
            }
        }
        loop {
            let open = self.at + memchr::memchr(b'<', buf.get(self.at..)?)?;
            let close = tag_end(buf, open)?;
            let tag = &buf[open..=close];
            self.at = close + 1;
            let len = self.at;
            let piece = if tag.starts_with(b"<?") {
                Some(Piece::Declaration(len))
            } else if tag.starts_with(b"</") {
                match self.depth {
                    0 => Some(Piece::Close(len)),
                    _ => {
                        self.depth -= 1;
                        (self.depth == 0).then_some(Piece::Element(len))
                    }
                }
            } else if tag.starts_with(b"<stream:stream") && self.depth == 0 {
                Some(Piece::Open(len))
            } else if tag.ends_with(b"/>") {
                (self.depth == 0).then_some(Piece::Element(len))
            } else {
                self.depth += 1;
                None
            };
            if piece.is_some() {
                self.at = 0;
                return piece;
            }
        }
    }
}

/// The index of the `>` that ends the tag at `open`, quotes respected.
fn tag_end(buf: &[u8], open: usize) -> Option<usize> {
    let mut at = open;
    loop {
        let hit = at + memchr::memchr3(b'>', b'"', b'\'', &buf[at..])?;
        match buf[hit] {
            b'>' => return Some(hit),
            quote => at = hit + 1 + memchr::memchr(quote, &buf[hit + 1..])? + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_the_same_at_every_chunk_size() {
        let text = b"<?xml version='1.0'?><stream:stream to='a>b'><a><b x='/>'/>t</a> <c/></stream:stream>";
        for size in 1..text.len() {
            let (mut framer, mut buf, mut got) = (Framer::default(), Vec::new(), Vec::new());
            for chunk in text.chunks(size) {
                buf.extend_from_slice(chunk);
                while let Some(piece) = framer.next(&buf) {
                    let (Piece::Declaration(n)
                    | Piece::Open(n)
                    | Piece::Element(n)
                    | Piece::Close(n)
                    | Piece::Space(n)) = piece;
                    got.push(piece);
                    buf.drain(..n);
                    if buf.is_empty() {
                        break;
                    }
                }
            }
            let want = [
                Piece::Declaration(21),
                Piece::Open(24),
                Piece::Element(19),
                Piece::Space(1),
                Piece::Element(4),
                Piece::Close(16),
            ];
            assert_eq!(got, want, "chunks of {size}");
        }
    }
}
