// Where one is: the fragment of the URL, `#/accounts`.
export const PAGES = [
  'overview', 'accounts', 'registration', 'federation', 'queue', 'blocklist', 'services',
  'settings', 'upkeep', 'checks', 'shares', 'system',
] // prettier-ignore

function read() {
  const name = location.hash.replace(/^#\/?/, '').split('/')[0]
  return PAGES.includes(name) ? name : PAGES[0]
}

export const route = $state({ page: read() })

addEventListener('hashchange', () => {
  route.page = read()
})
