import t from 'tap'
import { grants, isGranted } from '../../../src/identity/permissions.ts'

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
