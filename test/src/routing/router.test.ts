import t from 'tap'
import { ApiGatewayRouter } from '../../../src/routing/router.ts'

t.test('RTE-04 HLB-13 the worked examples of seed 003', async t => {
  const router = new ApiGatewayRouter()
  router.addRoute('/api/v1/agents', 'GET', 'http://agent-service:8001', 100)
  t.same(router.getHealthStatus(), { enabled: true, routes_count: 1, targets_count: 1 })
  router.addRoute('/api/v1/threads', 'POST', 'http://thread-service:8002')
  t.equal(router.routeRequest('/api/v1/agents', 'GET'), 'http://agent-service:8001')
  t.equal(router.routeRequest('/api/v1/agents?page=2', 'get'), 'http://agent-service:8001')
  t.equal(router.routeRequest('/api/v1/threads', 'POST'), 'http://thread-service:8002')
  for (const [path, method] of [
    ['/api/v1/agents', 'POST'],
    ['/api/v1/threads', 'GET'],
    ['/api/v1/agents/7', 'GET'],
    ['/api/v1/%zz', 'GET']
  ] as const)
    t.equal(router.routeRequest(path, method), undefined, `${method} ${path}`)
})

t.test('RTE-04 C-16 the library has the gateway’s precedence', async t => {
  const router = new ApiGatewayRouter()
  router.addRoute('/users/**', 'GET', 'http://prefix')
  router.addRoute('/users/{id}', 'GET', 'http://parameter')
  router.addRoute('/users/me', 'GET', 'http://exact')
  t.equal(router.routeRequest('/Users/./me', 'GET'), 'http://exact')
  t.equal(router.routeRequest('/users/7', 'GET'), 'http://parameter')
  t.equal(router.routeRequest('/users/7/posts', 'GET'), 'http://prefix')
})

t.test('RTE-04 HLB-09 targets of one route share its requests by weight', async t => {
  let chance = 0
  const router = new ApiGatewayRouter({ random: () => chance })
  router.addRoute('/a', 'GET', 'http://one', 75)
  router.addRoute('/a', 'GET', 'http://two', 25)
  router.addRoute('/a', 'GET', 'http://none', 0)
  t.same(router.getHealthStatus(), { enabled: true, routes_count: 1, targets_count: 3 })
  const picks = Array.from({ length: 100 }, (_, i) => {
    chance = i / 100
    return router.routeRequest('/a', 'GET')
  })
  t.equal(picks.filter(url => url === 'http://one').length, 75)
  t.equal(picks.filter(url => url === 'http://two').length, 25)
  router.addRoute('/a', 'GET', 'http://one', 0)
  chance = 0
  t.equal(router.routeRequest('/a', 'GET'), 'http://two', 'the same target again changes its weight')
  router.addRoute('/a', 'GET', 'http://two', 0)
  t.equal(router.routeRequest('/a', 'GET'), undefined, 'nobody wants any')
})

t.test('RTE-05 a route, and the router, are switched off and on', async t => {
  const router = new ApiGatewayRouter()
  router.addRoute('/a/{id}', 'GET', 'http://one')
  t.equal(router.setRouteEnabled('/a/{other}', 'GET', false), true)
  t.equal(router.routeRequest('/a/1', 'GET'), undefined)
  router.setRouteEnabled('/a/{id}', 'GET', true)
  t.equal(router.routeRequest('/a/1', 'GET'), 'http://one')
  t.equal(router.setRouteEnabled('/b', 'GET', false), false)
  router.enabled = false
  t.equal(router.routeRequest('/a/1', 'GET'), undefined)
  t.equal(router.getHealthStatus().enabled, false)
})
