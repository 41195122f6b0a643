// The ring of SPEC.md in JavaScript, for Node 20 or newer. It shares nothing with the Go package but the specification:
//
//     node hashring.mjs vectors.json
//
// checks every vector in the file and exits 1 where one differs.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

const U64 = (1n << 64n) - 1n
const GAMMA = 0x9e3779b97f4a7c15n
const STRATA = 4096
const rotl = (x, n) => ((x << n) | (x >> (64n - n))) & U64

// xxHash64 with seed 0.
export function xxh64(data) {
  const P1 = 0x9e3779b185ebca87n, P2 = 0xc2b2ae3d27d4eb4fn, P3 = 0x165667b19e3779f9n
  const P4 = 0x85ebca77c2b2ae63n, P5 = 0x27d4eb2f165667c5n
  const round = (acc, lane) => (rotl((acc + lane * P2) & U64, 31n) * P1) & U64
  let i = 0, h
  if (data.length >= 32) {
    const v = [(P1 + P2) & U64, P2, 0n, (0n - P1) & U64]
    for (; i + 32 <= data.length; i += 32) {
      for (let l = 0; l < 4; l++) v[l] = round(v[l], data.readBigUInt64LE(i + 8 * l))
    }
    h = (rotl(v[0], 1n) + rotl(v[1], 7n) + rotl(v[2], 12n) + rotl(v[3], 18n)) & U64
    for (const lane of v) h = ((h ^ round(0n, lane)) * P1 + P4) & U64
  } else {
    h = P5
  }
  h = (h + BigInt(data.length)) & U64
  for (; i + 8 <= data.length; i += 8) h = (rotl(h ^ round(0n, data.readBigUInt64LE(i)), 27n) * P1 + P4) & U64
  if (i + 4 <= data.length) {
    h = (rotl(h ^ ((BigInt(data.readUInt32LE(i)) * P1) & U64), 23n) * P2 + P3) & U64
    i += 4
  }
  for (; i < data.length; i++) h = (rotl(h ^ ((BigInt(data[i]) * P5) & U64), 11n) * P1) & U64
  h = ((h ^ (h >> 33n)) * P2) & U64
  h = ((h ^ (h >> 29n)) * P3) & U64
  return h ^ (h >> 32n)
}

// SipHash-2-4 under a key of 16 bytes.
export function sipHash24(key, data) {
  const k0 = key.readBigUInt64LE(0), k1 = key.readBigUInt64LE(8)
  let a = k0 ^ 0x736f6d6570736575n, b = k1 ^ 0x646f72616e646f6dn
  let c = k0 ^ 0x6c7967656e657261n, d = k1 ^ 0x7465646279746573n
  const rounds = (n) => {
    while (n-- > 0) {
      a = (a + b) & U64; b = rotl(b, 13n) ^ a; a = rotl(a, 32n)
      c = (c + d) & U64; d = rotl(d, 16n) ^ c
      a = (a + d) & U64; d = rotl(d, 21n) ^ a
      c = (c + b) & U64; b = rotl(b, 17n) ^ c; c = rotl(c, 32n)
    }
  }
  const padded = Buffer.alloc((data.length & ~7) + 8)
  data.copy(padded)
  padded[padded.length - 1] = data.length & 255
  for (let i = 0; i < padded.length; i += 8) {
    const m = padded.readBigUInt64LE(i)
    d ^= m; rounds(2); a ^= m
  }
  c ^= 0xffn
  rounds(4)
  return a ^ b ^ c ^ d
}

const mix = (x) => {
  x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & U64
  x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & U64
  return x ^ (x >> 31n)
}

const sha256 = (...parts) => createHash('sha256').update(Buffer.concat(parts.map((p) => Buffer.from(p)))).digest()
const uint32 = (n) => { const b = Buffer.alloc(4); b.writeUInt32BE(n); return b }

export class Ring {
  constructor(members, secret) {
    this.members = members.map(({ id, weight }) => ({ id, weight, bytes: Buffer.from(id) }))
      .sort((a, b) => Buffer.compare(a.bytes, b.bytes))
    this.key = secret && sha256('selvedge hashring v1 secret\0', secret).subarray(0, 16)
    this.points = []
    this.members.forEach(({ bytes, weight }, rank) => {
      let seed = xxh64(bytes)
      for (let u = 0; u < weight; u++) {
        seed = (seed + GAMMA) & U64
        let state = mix(seed)
        for (let s = 0; s < STRATA; s++) {
          state = (state + GAMMA) & U64
          this.points.push({ cell: s * 2 ** 36 + Number(mix(state) >> 28n), rank })
        }
      }
    })
    this.points.sort((a, b) => a.cell - b.cell || a.rank - b.rank)
  }

  hash(key) {
    return this.key ? sipHash24(this.key, Buffer.from(key)) : xxh64(Buffer.from(key))
  }

  // first returns the index of the first point at or after the hash's cell, going round at the end.
  first(hash) {
    const cell = Number(hash >> 16n)
    let low = 0, high = this.points.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.points[middle].cell < cell) low = middle + 1
      else high = middle
    }
    return low % this.points.length
  }

  successors(hash) {
    const ranks = new Set()
    for (let i = 0, at = this.first(hash); i < this.points.length; i++) {
      ranks.add(this.points[(at + i) % this.points.length].rank)
    }
    return [...ranks].map((rank) => this.members[rank].id)
  }

  owner(hash) {
    return this.points.length ? this.members[this.points[this.first(hash)].rank].id : ''
  }

  // cells returns how many of the 2^48 cells each member owns.
  cells() {
    const owned = this.members.map(() => 0)
    let from = 0
    for (const { cell, rank } of this.points) {
      if (cell >= from) {
        owned[rank] += cell + 1 - from
        from = cell + 1
      }
    }
    if (this.points.length) owned[this.points[0].rank] += 2 ** 48 - from
    return owned
  }

  digest() {
    const fingerprint = this.key ? sha256('selvedge hashring v1 fingerprint\0', this.key) : Buffer.alloc(32)
    const listed = this.members.flatMap((m) => [uint32(m.bytes.length), m.bytes, uint32(m.weight)])
    return sha256('selvedge hashring v1 digest\0', uint32(STRATA), fingerprint, ...listed).toString('hex', 0, 8)
  }
}

let checks = 0, failures = 0
function check(what, got, want) {
  checks++
  if (JSON.stringify(got) === JSON.stringify(want)) return
  failures++
  console.error(`${what}: got ${JSON.stringify(got)}, want ${JSON.stringify(want)}`)
}

const hex = (n) => n.toString(16).padStart(16, '0')
for (const v of JSON.parse(readFileSync(process.argv[2], 'utf8')).rings) {
  const ring = new Ring(v.members, v.secret_hex && Buffer.from(v.secret_hex, 'hex'))
  check(`${v.name}: digest`, ring.digest(), v.digest)
  check(`${v.name}: cells`, Object.fromEntries(ring.members.map((m, i) => [m.id, ring.cells()[i]])), v.cells)
  for (const k of v.keys) {
    const hash = ring.hash(k.key)
    check(`${v.name}: hash of ${JSON.stringify(k.key)}`, hex(hash), k.hash)
    check(`${v.name}: owner of ${JSON.stringify(k.key)}`, ring.owner(hash), k.owner)
    check(`${v.name}: successors of ${JSON.stringify(k.key)}`, ring.successors(hash), k.successors)
  }
  for (const h of v.hashes) check(`${v.name}: owner of hash ${h.hash}`, ring.owner(BigInt('0x' + h.hash)), h.owner)
}
console.log(`${checks} checks, ${failures} failures`)
process.exit(failures || !checks ? 1 : 0)
