// Light, dark, or as the system has it.
const KEY = 'madmail-theme'

function kept() {
  try {
    return localStorage.getItem(KEY)
  } catch {
    return null
  }
}

export const theme = $state({ name: kept() ?? 'auto' })

export function paint(name = theme.name) {
  theme.name = ['light', 'dark'].includes(name) ? name : 'auto'
  if (theme.name === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme.name
  try {
    localStorage.setItem(KEY, theme.name)
  } catch {
    // private windows may have no storage
  }
}
