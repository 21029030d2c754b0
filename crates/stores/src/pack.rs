//! The stored form of a payload: a codec, a checksum, the bytes, compressed where that helps.

use windlass_ports::store::StoreError;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const LZ4_PRIMED: u8 = 2;
const LZ4_START: u8 = 3;

/// What the start of every run repeats. Part of the stored form: never changed, only followed by another codec.
const START_PRIMER: &[u8] = br#"{"id":"","bundle":"","machine":"main","machine_name":"","input":{"":""},"parent":{"run":"","awaited":true},"root":"","depth":0,"scope":{"tenant":"default","user":""},"ceilings":{"steps":1000,"launches":null,"model_calls":null,"tool_calls":null,"tokens":null,"cost_micros":null,"depth":16,"wall_ms":null,"deadline":null},"deadline":null}"#;

/// Codec and checksum.
const HEADER_BYTES: usize = 5;
/// Below this, compression saves less than it costs.
const COMPRESS_BYTES_MIN: usize = 192;

fn checksum(codec: u8, body: &[u8]) -> [u8; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[codec]);
    hasher.update(body);
    let hash = hasher.finalize();
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

fn sealed(codec: u8, mut packed: Vec<u8>) -> Vec<u8> {
    let (header, body) = packed.split_at_mut(HEADER_BYTES);
    header[0] = codec;
    header[1..].copy_from_slice(&checksum(codec, body));
    packed
}

/// The stored form.
pub(crate) fn pack(bytes: &[u8]) -> Vec<u8> {
    pack_primed(bytes, &[])
}

/// The stored form of the start of a run.
pub(crate) fn pack_start(bytes: &[u8]) -> Vec<u8> {
    pack_with(LZ4_START, bytes, START_PRIMER)
}

/// The stored form of bytes that repeat much of `primer`; the same primer is needed to read them.
pub(crate) fn pack_primed(bytes: &[u8], primer: &[u8]) -> Vec<u8> {
    pack_with(LZ4_PRIMED, bytes, primer)
}

fn pack_with(primed: u8, bytes: &[u8], primer: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len());
    if let (Ok(length), true) = (length, bytes.len() >= COMPRESS_BYTES_MIN) {
        let body = HEADER_BYTES + 4;
        let mut packed = vec![0; body + lz4_flex::block::get_maximum_output_size(bytes.len())];
        packed[HEADER_BYTES..body].copy_from_slice(&length.to_le_bytes());
        let (codec, size) = if primer.is_empty() {
            (LZ4, lz4_flex::block::compress_into(bytes, &mut packed[body..]))
        } else {
            (primed, lz4_flex::block::compress_into_with_dict(bytes, &mut packed[body..], primer))
        };
        if let Ok(size) = size
            && size + size / 16 < bytes.len()
        {
            packed.truncate(body + size);
            return sealed(codec, packed);
        }
    }
    let mut packed = vec![0; HEADER_BYTES];
    packed.extend_from_slice(bytes);
    sealed(RAW, packed)
}

/// Whether these stored bytes need a primer to be read.
pub(crate) fn is_primed(packed: &[u8]) -> bool {
    packed.first() == Some(&LZ4_PRIMED)
}

/// Reads the stored form.
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are not what was written.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, StoreError> {
    unpack_primed(packed, &[])
}

/// Reads the stored form of bytes that were packed with `primer`.
///
/// # Errors
/// [`StoreError::Corrupt`] for bytes that are not what was written.
pub(crate) fn unpack_primed(packed: &[u8], primer: &[u8]) -> Result<Vec<u8>, StoreError> {
    let damaged = |what: &str| StoreError::Corrupt(format!("a payload {what}"));
    let (header, body) = packed.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("is cut off"))?;
    let codec = header[0];
    if header[1..] != checksum(codec, body) {
        return Err(damaged("does not have its checksum"));
    }
    if codec == RAW {
        return Ok(body.to_vec());
    }
    let (length, data) = body.split_first_chunk::<4>().ok_or_else(|| damaged("is cut off"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let bytes = match codec {
        LZ4 => lz4_flex::block::decompress(data, length),
        LZ4_PRIMED => lz4_flex::block::decompress_with_dict(data, length, primer),
        LZ4_START => lz4_flex::block::decompress_with_dict(data, length, START_PRIMER),
        _ => return Err(damaged(&format!("has codec {codec}, which this build does not know"))),
    };
    bytes.ok().filter(|bytes| bytes.len() == length).ok_or_else(|| damaged("cannot be expanded"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back() {
        let noise: Vec<u8> = (0..5_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for bytes in [&b""[..], b"short", &[7; 10_000], &noise] {
            assert_eq!(unpack(&pack(bytes)).unwrap(), bytes);
            assert_eq!(unpack_primed(&pack_primed(bytes, &noise), &noise).unwrap(), bytes);
            assert_eq!(unpack(&pack_start(bytes)).unwrap(), bytes);
        }
        assert!(pack(&[7; 10_000]).len() < 200);
        assert!(pack(&noise).len() <= noise.len() + HEADER_BYTES);
    }

    #[test]
    fn a_primer_saves_what_it_repeats() {
        let noise: Vec<u8> = (0..1_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let packed = pack_primed(&noise, &noise);
        assert!(is_primed(&packed) && packed.len() < 100, "{}", packed.len());
        assert!(unpack_primed(&packed, b"another primer").is_err() || unpack(&packed).is_err());
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let packed = pack(&[3; 600]);
        for place in 0..packed.len() {
            let mut bad = packed.clone();
            bad[place] ^= 1;
            assert!(unpack(&bad).is_err(), "byte {place}");
            assert!(unpack(&packed[..place]).is_err(), "cut at {place}");
        }
    }
}
