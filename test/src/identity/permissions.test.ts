import t from 'tap'
import { grants, inCommon, isGranted } from '../../../src/identity/permissions.ts'

t.test('C-03 AZN-06 permissions are compared exactly, but for "*"', async t => {
  const cases: [held: string, wanted: string, granted: boolean][] = [
    ['projects.read', 'projects.read', true],
    ['projects.read', 'projects.write', false],
    ['projects.read', 'Projects.read', false],
    ['projects.read', 'projects.read.all', false],
    ['projects.read.all', 'projects.read', false],
    ['manage:integrations', 'manage:integrations', true],
    ['*', 'projects.read', true],
    ['*', 'manage:integrations', true],
    ['projects.*', 'projects.read', true],
    ['projects.*', 'projects.read.all', true],
    ['projects.*', 'projects', false],
    ['projects.*', 'projectsx.read', false],
    ['projects.*', 'tasks.read', false],
    ['*.read', 'projects.read', true],
    ['*.read', 'projects.write', false],
    ['*.read', 'projects.read.all', false],
    ['a.*.c', 'a.b.c', true],
    ['a.*.c', 'a.b.d', false],
    ['a.*.c', 'a.c', false],
    ['read:*', 'read:tasks', true],
    ['read:*', 'read.tasks', false],
    ['read.*', 'read:tasks', false],
    ['pro*', 'projects', false],
    ['projects.re*', 'projects.read', false],
    ['', 'projects.read', false],
    ['projects.read', 'projects.*', false],
    ['projects.*', 'projects.*', true]
  ]
  for (const [held, wanted, granted] of cases) t.equal(grants(held, wanted), granted, `${held} for ${wanted}`)
  t.equal(isGranted(['a', 'b.*'], 'b.c'), true)
  t.equal(isGranted([], 'b.c'), false)
})

t.test('IDN-24 what two lists have in common is what both grant', async t => {
  const cases: [some: string[], others: string[], common: string[]][] = [
    [['orders.*'], ['orders.read'], ['orders.read']],
    [['orders.read'], ['*'], ['orders.read']],
    [['orders.*'], ['*'], ['orders.*']],
    [['orders.*.read'], ['orders.items.*'], ['orders.items.read']],
    [['*.read'], ['orders.*'], ['orders.read']],
    [
      ['a', 'b.*'],
      ['b.c', 'b.c.d', 'c'],
      ['b.c', 'b.c.d']
    ],
    [['orders.*'], ['orders:read'], []],
    [['orders.*'], ['orders'], []],
    [['a.*.c'], ['a.b'], []],
    [['*', 'a.b'], ['a.*', 'a.b'], ['a.*']],
    [[], ['*'], []]
  ]
  for (const [some, others, common] of cases) {
    t.same(inCommon(some, others).sort(), common, `${some} and ${others}`)
    t.same(inCommon(others, some).sort(), common, `${others} and ${some}`)
  }
})

t.test(
  'IDN-24 whatever the lists, nothing is in common that one of them does not grant, and nothing is lost',
  async t => {
    const parts = ['a', 'b', '*']
    const patterns = parts.flatMap(x => [x, ...parts.flatMap(y => [`${x}.${y}`, ...parts.map(z => `${x}.${y}.${z}`)])])
    const wanted = [
      'a',
      'b',
      'c',
      'a.a',
      'a.b',
      'b.a',
      'a.c',
      'c.a',
      'a:b',
      'a.a.a',
      'a.b.a',
      'b.b.b',
      'a.c.b',
      'a.b.c.d'
    ]
    let asked = 0
    for (const one of patterns)
      for (const other of patterns) {
        const common = inCommon([one], [other])
        for (const permission of wanted) {
          asked++
          if (isGranted(common, permission) !== (grants(one, permission) && grants(other, permission)))
            t.fail(`${one} and ${other} for ${permission}: ${common}`)
        }
      }
    t.ok(asked > 10_000)
  }
)
