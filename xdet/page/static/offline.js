const STORE = `xdet ${self.registration.scope} ${VERSION}`;

self.addEventListener("install", (event) => {
  const address = (name) => name.split("/").map(encodeURIComponent).join("/");
  const requests = FILES.map((name) => new Request(address(name), { cache: "no-cache" }));
  event.waitUntil(caches.open(STORE).then((store) => store.addAll(requests)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const mine = `xdet ${self.registration.scope} `;
  const drop = (names) => names.filter((name) => name.startsWith(mine) && name !== STORE).map((name) => caches.delete(name));
  event.waitUntil(caches.keys().then((names) => Promise.all(drop(names))).then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  event.respondWith(caches.match(event.request, { ignoreSearch: true }).then((kept) => kept ?? fetch(event.request)));
});
