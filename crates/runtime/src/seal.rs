//! What the next seal is: segments over the chains that grew, for each tenant after its last one.

use std::collections::BTreeMap;

use windlass_core::ids::Name;
use windlass_core::seal::{LEAVES_MAX, Last, Leaf, Segment};
use windlass_ports::store::{Sealing, Unsealed};

/// The seal of what is not sealed.
#[must_use]
pub fn sealing(unsealed: Unsealed) -> Sealing {
    let Unsealed { epoch, now, chains, last, mark, .. } = unsealed;
    let mut lasts: BTreeMap<Name, Last> = last.into_iter().collect();
    let mut grown: BTreeMap<Name, Vec<Leaf>> = BTreeMap::new();
    for one in chains {
        grown.entry(one.tenant).or_default().push(Leaf::of(one.run, one.chain));
    }
    let mut segments = Vec::new();
    for (tenant, mut leaves) in grown {
        leaves.sort();
        for part in leaves.chunks(LEAVES_MAX) {
            let last = lasts.entry(tenant.clone()).or_default();
            let segment = Segment::after(*last, tenant.clone(), now, part.to_vec());
            *last = Last { number: segment.seal.number, hash: segment.seal.hash() };
            segments.push(segment);
        }
    }
    Sealing { epoch, mark, at: now, segments }
}

#[cfg(test)]
mod tests {
    use windlass_core::audit::Chain;
    use windlass_core::ids::{Digest, RunId};
    use windlass_ports::store::Grown;

    use super::*;

    #[test]
    fn segments_are_made_for_each_tenant_and_none_is_too_large() {
        let grown = |tenant: &str, n: usize| Grown {
            tenant: tenant.into(),
            run: RunId::stored(&format!("{n:05}")),
            chain: Chain { rows: 1, head: Digest::ZERO },
        };
        let chains = (0..LEAVES_MAX + 1).map(|n| grown("a", n)).chain([grown("b", 0)]).collect();
        let last = Last { number: 7, hash: Digest::of(b"7") };
        let sealing = sealing(Unsealed { chains, last: vec![("a".into(), last)], ..Unsealed::default() });
        let shown: Vec<_> = sealing.segments.iter().map(|one| (&*one.seal.tenant, one.seal.number)).collect();
        assert_eq!(shown, [("a", 8), ("a", 9), ("b", 1)]);
        let next = sealing.segments[0].check("a", last).expect("follows");
        sealing.segments[1].check("a", next).expect("follows");
        assert_eq!(sealing.segments[1].chains.len(), 1);
    }
}
