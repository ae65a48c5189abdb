#!/bin/sh
# Closes node ports that Tidegate replaces, written by `tidegate audit`.
# Apply the routes first and compare both ways: tidegate audit --verify --gate ADDRESS
set -e

# At once
# store/grpc: says that port 9000 speaks HTTP/2 in cleartext; without it Tidegate speaks HTTP/1 to it
kubectl patch service grpc -n store --type json -p '[{"op":"test","path":"/spec/ports/0/port","value":9000},{"op":"add","path":"/spec/ports/0/appProtocol","value":"kubernetes.io/h2c"}]'

# Once the routes answer
# store/api: it keeps its ClusterIP and opens no node port
kubectl patch service api -n store --type merge -p '{"spec":{"type":"ClusterIP"}}'
# store/desk: it keeps its ClusterIP and opens no node port
kubectl patch service desk -n store --type merge -p '{"spec":{"type":"ClusterIP"}}'
# store/edge: it keeps the load balancer's addresses and opens no node port for them
kubectl patch service edge -n store --type json -p '[{"op":"add","path":"/spec/allocateLoadBalancerNodePorts","value":false},{"op":"test","path":"/spec/ports/0/nodePort","value":30180},{"op":"remove","path":"/spec/ports/0/nodePort"}]'
# store/edge-mixed: it keeps the load balancer's addresses and opens no node port for them
kubectl patch service edge-mixed -n store --type json -p '[{"op":"add","path":"/spec/allocateLoadBalancerNodePorts","value":false},{"op":"test","path":"/spec/ports/0/nodePort","value":30181},{"op":"remove","path":"/spec/ports/0/nodePort"}]'
# store/grpc: it keeps its ClusterIP and opens no node port
kubectl patch service grpc -n store --type merge -p '{"spec":{"type":"ClusterIP"}}'
# store/ingress-nginx-controller: it keeps its ClusterIP and opens no node port
kubectl patch service ingress-nginx-controller -n store --type merge -p '{"spec":{"type":"ClusterIP"}}'
# store/web: it keeps its ClusterIP and opens no node port
kubectl patch service web -n store --type merge -p '{"spec":{"type":"ClusterIP"}}'

# Once nobody comes to the addresses of the load balancer any more (take the # away)
# store/edge: gives up the load balancer's addresses, and with them the health check port 31999
# kubectl patch service edge -n store --type merge -p '{"spec":{"type":"ClusterIP"}}'
