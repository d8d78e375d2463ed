import t from 'tap'
import type { Consumer } from '../../../src/identity/consumer.ts'
import { identityFields } from '../../../src/identity/identity-fields.ts'

const ALICE: Omit<Consumer, 'identityFields'> = {
  key: 'user:u1',
  kind: 'user',
  id: 'u1',
  name: 'Alice Doe',
  roles: ['admin', 'developer'],
  permissions: ['read:tasks', 'write:tasks'],
  tier: undefined,
  credential: 'jwt',
  claims: {},
  expiresAt: 7
}
const fieldsOf = (consumer: Partial<typeof ALICE>): Record<string, string> => {
  const flat = identityFields({ ...ALICE, ...consumer })
  return Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1] as string]] : [])))
}

t.test('IDN-18 a caller is introduced by fields of his own', async t => {
  t.same(fieldsOf({}), {
    'x-user-id': 'u1',
    'x-user-name': 'Alice Doe',
    'x-user-roles': 'admin,developer',
    'x-user-permissions': 'read:tasks,write:tasks',
    'x-auth-method': 'jwt'
  })
  t.same(fieldsOf({ kind: 'api_key', id: 'ci', name: 'Builds', roles: [], permissions: [], credential: 'api_key' }), {
    'x-client-id': 'ci',
    'x-user-name': 'Builds',
    'x-auth-method': 'api_key'
  })
  t.same(fieldsOf({ kind: 'client', id: 'batch', name: '', roles: [], permissions: [] }), {
    'x-client-id': 'batch',
    'x-auth-method': 'jwt'
  })
})

t.test('VAL-05 H-43 no claim starts a field, or makes two values of one', async t => {
  const cases: [claim: string, field: string][] = [
    ['a\r\nx-user-roles: admin', 'a%0D%0Ax-user-roles: admin'],
    ['a\0b', 'a%00b'],
    ['Zoë', 'Zo%C3%AB'],
    ['100%', '100%25'],
    ['\ud800', '%EF%BF%BD'],
    [' a ', '%20a%20'],
    ['\u2028', '%E2%80%A8']
  ]
  for (const [claim, field] of cases) {
    t.equal(fieldsOf({ id: claim })['x-user-id'], field)
    t.equal(fieldsOf({ roles: [claim, 'b'] })['x-user-roles'], `${field},b`)
  }
  t.equal(fieldsOf({ roles: ['user,admin'] })['x-user-roles'], 'user%2Cadmin')
  t.notSame(fieldsOf({ roles: [' admin'] })['x-user-roles'], 'admin')
})
