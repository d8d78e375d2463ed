import t from 'tap'
import { FrameFollower } from '../../../src/proxy/frames.ts'
import { seeded } from '../../support/random.ts'

const LENGTHS = [0, 1, 5, 125, 126, 127, 300, 65535, 65536, 70000]

/** A binary frame with a payload of `length` bytes (RFC 6455 section 5.2). */
function frame(length: number, masked: boolean): Buffer {
  const mask = masked ? 0x80 : 0
  const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10)
  head[0] = 0x82
  head[1] = mask | (length < 126 ? length : length < 65536 ? 126 : 127)
  if (head.length === 4) head.writeUInt16BE(length, 2)
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2)
  return Buffer.concat([head, Buffer.alloc(masked ? 4 : 0, 1), Buffer.alloc(length, 7)])
}

t.test('H-116 the ends of frames are known, in whatever pieces they come', async t => {
  const random = seeded(7)
  const below = (n: number): number => Math.floor(random() * n)
  for (let run = 0; run < 300; run++) {
    const frames = Array.from({ length: 1 + below(6) }, () =>
      frame(LENGTHS[below(LENGTHS.length)] as number, below(2) === 1)
    )
    const stream = Buffer.concat(frames)
    const ends: number[] = []
    for (const { length } of frames) ends.push((ends.at(-1) ?? 0) + length)
    const follower = new FrameFollower()
    const found: number[] = []
    const boundaries: boolean[] = []
    const expected: number[] = []
    const expectedBoundaries: boolean[] = []
    for (let at = 0; at < stream.length; ) {
      const next = Math.min(stream.length, at + 1 + below(below(2) === 1 ? 20 : 50_000))
      found.push(follower.push(stream.subarray(at, next)))
      boundaries.push(follower.atBoundary)
      expected.push(Math.max(0, ...ends.filter(end => end > at && end <= next).map(end => end - at)))
      expectedBoundaries.push(ends.includes(next))
      at = next
    }
    if (run % 50 === 0 || JSON.stringify(found) !== JSON.stringify(expected))
      t.strictSame(found, expected, `run ${run}`)
    if (run % 50 === 0 || JSON.stringify(boundaries) !== JSON.stringify(expectedBoundaries))
      t.strictSame(boundaries, expectedBoundaries, `run ${run}`)
  }
})
