//! The stored form of a payload: a codec, a checksum, the bytes, compressed where that helps.

use windlass_ports::store::StoreError;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const LZ4_PRIMED: u8 = 2;
const LZ4_START: u8 = 3;
const LZ4_RECORD: u8 = 4;
const LZ4_AUDIT: u8 = 5;
/// Added to a codec when the checksum is a CRC-32; without it the checksum is the start of a BLAKE3 hash.
const CRC: u8 = 0x80;

/// What the start of every run repeats. Part of the stored form: never changed, only followed by another codec.
const START_PRIMER: &[u8] = br#"{"id":"","bundle":"","machine":"main","machine_name":"","input":{"":""},"parent":{"run":"","awaited":true},"root":"","depth":0,"scope":{"tenant":"default","user":""},"ceilings":{"steps":1000,"launches":null,"model_calls":null,"tool_calls":null,"tokens":null,"cost_micros":null,"depth":16,"wall_ms":null,"deadline":null},"deadline":null}"#;

/// What records repeat, the commonest last. Part of the stored form, as above.
const RECORD_PRIMER: &[u8] = br#"{"context_changed":{"removed":["{"loop_stopped":{"reason":"complete"}},"agent_ended",{"ceiling_near":{"meter":"{"attempt_failed":{"effect":1,"attempt":1,"failure":{"code":"provider.","retry":"never","message":"{"failure_raised":{"failure":{"code":"{"failure_routed":{"from":"{"timer_set":{"effect":1,"timer":{"due":17,"purpose":{"wait_timeout":{"wait":"{"timer_ended":{"effect":1,"fired":false}},{"wait_opened":{"effect":1,"wait":{"channel":"","kind":"signal","due":{"wait_closed":{"effect":{"join_started":{"join":{"shape":"one","any":false,"slots":[null],"open":1}}},{"child_started":{"child":{"id":"","machine":"","input":{},"ceilings":{"tokens":,"depth":15},"allotment":{"tokens":},"awaited":true,"depth":1,"deadline":},"slot":0}},"input":"child_ended"}},{"child_settled":{"child":"","ending":{"completed":{"output":{"},"used":{}}},"join_ended","input":"signalled"}},{"tool_calls_seen":{}},{"tool_answered":{"index":0,"content":"","counted":true}},{"tool_passed":{"index":0}},{"tool":{"tool":"","call_id":"","arguments":{"}}},"attempt":1,"class":"write","idempotency":"key","arguments":"","reserved":{"tool_calls":1},{"agent_started":{"exec":{"agent":"","prompt":[{"role":"system","content":""},{"role":"user","content":""}],"post_history":"","samples":[{"state":"wanted"}],"tools":{"bounds":{"tool_calls":0,"turns":0,"cost_micros":0,"tool_timeout_ms":0,"total_timeout_ms":0},"turns":0,"calls":0,"cost_micros":0,"content":""},"at":17{"tools_listed":{"tools":[{"definition":{"name":"","description":"","parameters":{"type":"object","properties":{"{"turn_taken":{"message":{"role":"assistant","content":"","tool_calls":[{"id":"","name":"","arguments":{}}]},"pending":[{"outcome":{"replied":{"content":"","has_content":true,"finish":"stop","usage":{"input":10,"cache_read":null,"cache_write":null,"output":5,"reasoning":null},"cost_micros":20}},"used":{"model_calls":1,"tokens":15,"cost_micros":20}}},{"sample_done":{"sample":0,"output":{"content":"{"context_changed":{"set":[["{"call":{"model":{"agent":"","sample":0}},"attempt":1,"class":"read","idempotency":"none","arguments":"","reserved":{"model_calls":1,"tokens":,"cost_micros":},"timeout_ms":600000,"output_bytes_max":67108864,"at":17{"stage_reached":{"stage":{"working":"agent"}}}]}{"call_settled":{"effect":1,"attempt":1,"outcome":{"returned":{"}},"output_produced":{"output":{"ending_decided":{"ending":{"completed":{"output":{"}}}}},"run_ended"]}{"v":1,"version":1,"entries":[{"decided":{"at":17,"input":"started"}},{"v":1,"version":2,"entries":[{"decided":{"at":179,"input":"settled"}},{"call_settled":{"effect":1,"attempt":1,"outcome":{"returned":null},"used":{}}},"hooks_ended",{"transition_taken":{"from":"","to":"","index":0}},{"state_entered":{"state":""}},{"hooks_started":{"event":"action"}},{"call_intended":{"effect":2,"call":{"call":{"action":{"action":""}},"attempt":1,"class":"read","idempotency":"natural","arguments":"","reserved":{},"timeout_ms":30000,"output_bytes_max":1048576,"at":179}}},{"stage_reached":{"stage":{"working":"action"}}}]}"#;
/// What audit rows repeat, as above.
const AUDIT_PRIMER: &[u8] = br#""stage":"abandoned","kind":"verify","stage":"lost","kind":"hook","stage":"failed","class":"danger","class":"write","arguments":"","result":"","at":179,"previous":"[{"number":1,"effect":1,"attempt":1,"stage":"intended","kind":"model","target":"","class":"write","arguments":"","at":179,"previous":"0000000000000000000000000000000000000000000000000000000000000000"}]"kind":"tool","target":"[{"number":2,"effect":1,"attempt":1,"stage":"settled","kind":"action","target":"","class":"read","arguments":"","result":"","at":179,"previous":""},{"number":3,"effect":2,"attempt":1,"stage":"intended","kind":"action","target":"","class":"read","arguments":"","at":179,"previous":""}]"#;

/// Codec and checksum.
const HEADER_BYTES: usize = 5;
/// Below this, compression saves less than it costs.
const COMPRESS_BYTES_MIN: usize = 192;

fn checksum(codec: u8, body: &[u8]) -> [u8; 4] {
    if codec & CRC != 0 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&[codec]);
        hasher.update(body);
        return hasher.finalize().to_le_bytes();
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[codec]);
    hasher.update(body);
    let hash = hasher.finalize();
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

fn sealed(codec: u8, mut packed: Vec<u8>) -> Vec<u8> {
    let (header, body) = packed.split_at_mut(HEADER_BYTES);
    let codec = codec | CRC;
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

/// The stored form of a record; `start` is the stored text of its run's start when the record repeats it, else empty.
pub(crate) fn pack_record(bytes: &[u8], start: &[u8]) -> Vec<u8> {
    if start.is_empty() { pack_with(LZ4_RECORD, bytes, RECORD_PRIMER) } else { pack_primed(bytes, start) }
}

/// The stored form of audit rows.
pub(crate) fn pack_audit(bytes: &[u8]) -> Vec<u8> {
    pack_with(LZ4_AUDIT, bytes, AUDIT_PRIMER)
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
    packed.first().is_some_and(|codec| codec & !CRC == LZ4_PRIMED)
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
    let codec = codec & !CRC;
    if codec == RAW {
        return Ok(body.to_vec());
    }
    let (length, data) = body.split_first_chunk::<4>().ok_or_else(|| damaged("is cut off"))?;
    let length = u32::from_le_bytes(*length) as usize;
    let bytes = match codec {
        LZ4 => lz4_flex::block::decompress(data, length),
        LZ4_PRIMED => lz4_flex::block::decompress_with_dict(data, length, primer),
        LZ4_START => lz4_flex::block::decompress_with_dict(data, length, START_PRIMER),
        LZ4_RECORD => lz4_flex::block::decompress_with_dict(data, length, RECORD_PRIMER),
        LZ4_AUDIT => lz4_flex::block::decompress_with_dict(data, length, AUDIT_PRIMER),
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
            assert_eq!(unpack(&pack_record(bytes, &[])).unwrap(), bytes);
            assert_eq!(unpack_primed(&pack_record(bytes, &noise), &noise).unwrap(), bytes);
            assert_eq!(unpack(&pack_audit(bytes)).unwrap(), bytes);
        }
        assert!(pack(&[7; 10_000]).len() < 200);
        assert!(pack(&noise).len() <= noise.len() + HEADER_BYTES);
    }

    #[test]
    fn what_was_sealed_with_a_hash_can_be_read() {
        let hash = |codec: u8, body: &[u8]| blake3::hash(&[&[codec], body].concat()).as_bytes()[..4].to_vec();
        let text = [7; 600];
        let packed = lz4_flex::block::compress(&text);
        let body = [&600_u32.to_le_bytes()[..], &packed].concat();
        for (codec, body) in [(RAW, &text[..]), (LZ4, &body)] {
            let stored = [&[codec][..], &hash(codec, body), body].concat();
            assert_eq!(unpack(&stored).unwrap(), text);
        }
    }

    #[test]
    fn records_and_audit_rows_have_primers() {
        let record = br#"{"v":1,"version":2,"entries":[{"decided":{"at":1795250157526,"input":"settled"}},{"call_settled":{"effect":1,"attempt":1,"outcome":{"returned":null},"used":{}}},"hooks_ended",{"transition_taken":{"from":"s0","to":"s1","index":0}},{"state_entered":{"state":"s1"}}]}"#;
        assert!(pack_record(record, &[]).len() < record.len() / 2);
        let audit = br#"[{"number":4,"effect":2,"attempt":1,"stage":"settled","kind":"action","target":"noop","class":"read","arguments":"66776c69b0a6fc2381b3d1109e8d9d94c9b3d2d9c3a6d284fc0b234f17db8357","result":"03f88b99c3d8073bba8948d6e762aac443b265f606cc05abd4d172f03a4def6a","at":1795250157527,"previous":"032c4001a99e0cd2d63b43084dfba632a9df899cdb1bc7b32208b17c33a529cb"}]"#;
        assert!(pack_audit(audit).len() < audit.len() * 3 / 4);
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
