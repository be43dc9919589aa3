// An aedes broker on the loopback port that is named, in memory, open to anybody, until it is ended.
'use strict'
const net = require('node:net')
const { Aedes } = require('aedes')

Aedes.createBroker().then((broker) => {
  net.createServer(broker.handle).listen(Number(process.argv[2]), '127.0.0.1')
})
