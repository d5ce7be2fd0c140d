import { mount } from 'svelte'
import './app.css'
import App from './App.svelte'
import { speak, wanted } from './lib/messages.svelte.js'
import { paint } from './lib/theme.svelte.js'

paint()
speak(wanted()).then(() => mount(App, { target: document.getElementById('app') }))
