import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { needProgram } from '../tools.ts'
import { CONNECTIONS, type Contender } from './contender.ts'

export const haproxy: Contender = {
  name: 'haproxy',
  title: 'HAProxy, plain',
  policies: 'none',
  missing: () => needProgram('haproxy'),
  command({ folder, port, upstream }) {
    const file = join(folder, 'haproxy.cfg')
    writeFileSync(
      file,
      `global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend door
  bind 127.0.0.1:${port}
  default_backend orders
backend orders
  http-reuse always
  server one 127.0.0.1:${upstream} maxconn ${CONNECTIONS}
`
    )
    return ['haproxy', '-db', '-f', file]
  }
}
