import t from 'tap'
import { Type as TypeBox } from 'typebox'
import { Type } from '../../src/schema.ts'

type Builder = typeof Type

/** As much of both builders as options are made of. */
const MADE: readonly [string, (type: Builder) => object][] = [
  ['Array', type => type.Array(type.String(), { default: [] })],
  ['Boolean', type => type.Boolean({ description: 'x' })],
  ['Integer', type => type.Integer({ minimum: 0 })],
  ['Literal', type => type.Literal(false)],
  ['Null', type => type.Null()],
  ['Number', type => type.Number({ maximum: 1 })],
  ['Record', type => type.Record(type.String(), type.Integer())],
  ['String', type => type.String({ pattern: '^a' })],
  ['Union', type => type.Union([type.Literal('a'), type.Integer()])],
  ['Unknown', type => type.Unknown({ description: 'x' })],
  [
    'Object',
    type => type.Object({ a: type.String(), b: type.Optional(type.Integer()) }, { additionalProperties: false })
  ]
]

for (const [name, make] of MADE)
  t.test(`CFG-08 Type.${name} makes what TypeBox makes`, async t => {
    t.strictSame(plain(make(Type)), plain(make(TypeBox as unknown as Builder)))
  })

t.test('CFG-08 an object is closed, and what has a default is not required', async t => {
  const schema = Type.Object({ a: Type.String(), b: Type.String({ default: '' }) }) as unknown as Record<
    string,
    unknown
  >
  t.strictSame([schema.required, schema.additionalProperties], [['a'], false])
})

function plain(schema: object): unknown {
  return JSON.parse(JSON.stringify(schema))
}
