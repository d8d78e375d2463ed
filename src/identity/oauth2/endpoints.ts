/** Where OAuth's endpoints are, below `paths.oauth`. */
export const ENDPOINTS = {
  authorization: '/authorize',
  token: '/token',
  introspection: '/introspect',
  revocation: '/revoke',
  jwks: '/jwks',
  userinfo: '/userinfo',
  end_session: '/logout',
  interaction: '/interaction'
} as const
