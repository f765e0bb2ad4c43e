-- Run once by the image of Postgres, as the superuser, while its volume is empty. compose.yaml mounts it.
-- psql reads the passwords from the service's environment: a file that holds them would have to be written into the
-- container, and its root is read-only.
\getenv darkroom_password DARKROOM_DB_PASSWORD
\getenv prefect_password PREFECT_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
create role darkroom login password :'darkroom_password';
create role prefect login password :'prefect_password';
create role mlflow login password :'mlflow_password';
create database darkroom owner darkroom;
create database prefect owner prefect;
create database mlflow owner mlflow;
revoke connect on database postgres, darkroom, prefect, mlflow from public;
